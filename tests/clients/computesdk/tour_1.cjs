// npm computesdk 1.10.3, unmodified, through all that it can do.
'use strict';
globalThis.WebSocket = require('ws');
process.env.COMPUTESDK_GATEWAY_URL = process.env.GATEWAY;
process.env.COMPUTESDK_API_KEY = process.env.KEY;
process.env.E2B_API_KEY = 'x'; // it insists on a provider's credential
const client = require('computesdk1');
const { assert, step, note, noteObject, tour } = require('./harness.cjs');
const steps = require('./steps.cjs');

const compute = client.compute;
note('Sandbox', client.Sandbox.prototype);
note('TerminalInstance', client.TerminalInstance.prototype);
note('FileWatcher', client.FileWatcher.prototype);
note('SignalService', client.SignalService.prototype);

async function gateway() {
  noteObject('compute.sandbox', compute.sandbox);
  return step('compute.sandbox.create, configured by its environment alone', async () => {
    const sandbox = await compute.sandbox.create({ metadata: { of: 'tour' } });
    for (const part of ['terminal', 'run', 'server', 'watcher', 'sessionToken', 'magicLink', 'signal', 'file', 'env',
      'auth', 'child']) {
      note(part, Object.getPrototypeOf(sandbox[part]));
    }
    noteObject('filesystem', sandbox.filesystem);
    return sandbox;
  });
}

async function named(sandbox) {
  await step('compute.sandbox.getById, and null for one that nobody has', async () => {
    assert.equal((await compute.sandbox.getById(sandbox.sandboxId)).sandboxId, sandbox.sandboxId);
    assert.equal(await compute.sandbox.getById('sess_0123456789ab'), null);
  });
  await step('compute.sandbox.findOrCreate, find and destroy', async () => {
    const made = await compute.sandbox.findOrCreate({ name: 'tour-1' });
    assert.equal((await compute.sandbox.find({ name: 'tour-1' })).sandboxId, made.sandboxId);
    await compute.sandbox.destroy(made.sandboxId);
    assert.equal(await compute.sandbox.find({ name: 'tour-1' }), null);
  });
  await step('compute.sandbox.extendTimeout; list says that there is none', async () => {
    await compute.sandbox.extendTimeout(sandbox.sandboxId);
    await assert.rejects(compute.sandbox.list(), /does not support listing/);
  });
}

tour(async () => {
  const sandbox = await gateway();
  if (!sandbox) return;
  await steps.about(sandbox, sandbox.provider);
  await steps.commands(sandbox);
  await step('it ignores the callbacks of runCommand: there is no streaming in it', async () => {
    const heard = [];
    const ran = await sandbox.runCommand('echo plain', { onStdout: (text) => heard.push(text), timeout: 5 });
    assert.deepEqual([ran.stdout, heard], ['plain\n', []]);
  });
  await steps.code(sandbox);
  await steps.files(sandbox);
  await steps.terminals(sandbox, {
    retrieved: async (id) => (await sandbox.terminal.retrieve(id)).data,
  });
  await steps.watchers(sandbox);
  await steps.signals(sandbox);
  await steps.environment(sandbox);
  await steps.servers(sandbox, {});
  await steps.tokens(sandbox, {});
  await steps.children(sandbox);
  await named(sandbox);
  await step('destroy hangs up; compute.sandbox.destroy ends the sandbox', async () => {
    const id = sandbox.sandboxId;
    await sandbox.destroy();
    await compute.sandbox.destroy(id);
    assert.equal(await compute.sandbox.getById(id), null);
  });
});
