// npm computesdk 2.5.4, unmodified, through all that it can do.
'use strict';
globalThis.WebSocket = require('ws'); // Node 20 has none of its own, and the client asks the global for its states
const client = require('computesdk');
const { assert, step, note, noteObject, eventually, tour } = require('./harness.cjs');
const steps = require('./steps.cjs');

const { GATEWAY, KEY } = process.env;
const compute = client.compute;
note('Sandbox', client.Sandbox.prototype);
note('TerminalInstance', client.TerminalInstance.prototype);
note('FileWatcher', client.FileWatcher.prototype);
note('SignalService', client.SignalService.prototype);

async function gateway() {
  compute.setConfig({ provider: 'just-bash', computesdkApiKey: KEY, gatewayUrl: GATEWAY, 'just-bash': {} });
  noteObject('compute.sandbox', compute.sandbox);
  noteObject('compute.snapshot', compute.snapshot);
  return step('compute.sandbox.create', async () => {
    const sandbox = await compute.sandbox.create({
      timeout: 600000, metadata: { of: 'tour' }, envs: { FROM_CREATE: 'yes' },
    });
    for (const part of ['terminal', 'run', 'server', 'watcher', 'sessionToken', 'magicLink', 'signal', 'file', 'env',
      'auth', 'child']) {
      note(part, Object.getPrototypeOf(sandbox[part]));
    }
    note('overlay', Object.getPrototypeOf(sandbox.filesystem.overlay));
    noteObject('filesystem', sandbox.filesystem);
    return sandbox;
  });
}

async function named(sandbox) {
  await step('what create was given is there', async () => {
    assert.equal((await sandbox.runCommand('echo $FROM_CREATE')).stdout, 'yes\n');
    assert.deepEqual((await sandbox.getInfo()).metadata.of, 'tour');
  });
  await step('compute.sandbox.getById, and null for one that nobody has', async () => {
    assert.equal((await compute.sandbox.getById(sandbox.sandboxId)).sandboxId, sandbox.sandboxId);
    assert.equal(await compute.sandbox.getById('sess_0123456789ab'), null);
  });
  await step('compute.sandbox.findOrCreate, find and destroy', async () => {
    const name = 'tour-2';
    assert.equal(await compute.sandbox.find({ name, namespace: 'tours' }), null);
    const [one, other] = await Promise.all([
      compute.sandbox.findOrCreate({ name, namespace: 'tours' }),
      compute.sandbox.findOrCreate({ name, namespace: 'tours' }),
    ]);
    assert.equal(one.sandboxId, other.sandboxId);
    assert.equal((await compute.sandbox.find({ name, namespace: 'tours' })).sandboxId, one.sandboxId);
    await compute.sandbox.destroy(one.sandboxId);
    assert.equal(await compute.sandbox.find({ name, namespace: 'tours' }), null);
  });
  await step('compute.sandbox.extendTimeout; list says that there is none', async () => {
    await compute.sandbox.extendTimeout(sandbox.sandboxId, { duration: 60000 });
    await compute.sandbox.extendTimeout(sandbox.sandboxId);
    await assert.rejects(compute.sandbox.list(), /does not support listing/);
  });
  await step('compute.snapshot', async () => {
    const found = await sandbox.runCommand('pwd; echo kept > kept.txt');
    assert.equal(found.exitCode, 0);
    const made = await compute.snapshot.create(sandbox.sandboxId, { name: 'of-the-tour', metadata: { a: 1 } });
    assert.ok(made.id && made.createdAt instanceof Date);
    assert.ok((await compute.snapshot.list()).some((one) => one.id === made.id));
    const again = await compute.sandbox.create({ snapshotId: made.id });
    try {
      assert.equal((await again.runCommand('cat kept.txt')).stdout, 'kept\n');
    } finally {
      await again.destroy();
    }
    await compute.snapshot.delete(made.id);
    assert.ok(!(await compute.snapshot.list()).some((one) => one.id === made.id));
  });
  await step('a wrong key is told as such', async () => {
    const other = compute({ provider: 'just-bash', computesdkApiKey: 'sk_wrong', gatewayUrl: GATEWAY, 'just-bash': {} });
    await assert.rejects(other.sandbox.create(), /Invalid ComputeSDK API key/);
  });
}

async function streams(sandbox) {
  await step('runCommand streams its output as it comes', async () => {
    const [out, err] = [[], []];
    const ran = await sandbox.runCommand('echo one; sleep 0.2; echo two; echo "${X}" >&2; exit 5', {
      env: { X: 'wrong ✓' },
      onStdout: (text) => out.push(text),
      onStderr: (text) => err.push(text),
    });
    assert.deepEqual([ran.stdout, ran.stderr, ran.exitCode], ['one\ntwo\n', 'wrong ✓\n', 5]);
    assert.ok(out.length >= 2);
    assert.deepEqual(err.join(''), 'wrong ✓\n');
  });
  await step('a million bytes stream whole', async () => {
    const ran = await sandbox.runCommand('seq 150000', { onStdout: () => {} });
    assert.equal(ran.stdout.length, 938895);
    assert.ok(ran.stdout.endsWith('150000\n'));
  });
  await step('two stream beside each other; in the background too', async () => {
    const heard = [];
    const background = await sandbox.runCommand('echo behind', { background: true, onStdout: (text) => heard.push(text) });
    assert.equal(background.exitCode, 0);
    const both = await Promise.all(
      ['a', 'b'].map((name) => sandbox.runCommand(`sleep 0.1; echo ${name}`, { onStdout: () => {} })),
    );
    assert.deepEqual(both.map((one) => one.stdout), ['a\n', 'b\n']);
    await eventually(() => heard.includes('behind\n'), 'the output of the one in the background');
  });
  await step('runCommand with a timeout runs behind and is waited for', async () => {
    const ran = await sandbox.runCommand('echo waited; exit 1', { timeout: 20 });
    assert.deepEqual([ran.stdout, ran.exitCode], ['waited\n', 1]);
  });
  await step('run.waitForCompletion', async () => {
    const begun = await sandbox.run.command('sleep 0.2; echo end', { background: true });
    assert.ok(begun.cmdId && begun.terminalId && begun.status === 'running');
    const ran = await sandbox.run.waitForCompletion(begun.terminalId, begun.cmdId, { timeoutSeconds: 10 });
    assert.deepEqual([ran.stdout, ran.status], ['end\n', 'completed']);
  });
}

async function more(sandbox) {
  await step('server.logs and delete', async () => {
    const logs = await sandbox.server.logs('site', { stream: 'stdout' });
    assert.equal(logs.slug, 'site');
    assert.match(logs.logs, /starting/);
    assert.equal((await sandbox.server.logs('site')).stream, 'combined');
    await sandbox.server.delete('site');
    assert.ok(!(await sandbox.server.list()).some((one) => one.slug === 'site'));
  });
  await step('ready tells of servers and overlays', async () => {
    const ready = await sandbox.ready();
    assert.equal(typeof ready.ready, 'boolean');
    assert.ok(Array.isArray(ready.servers) && Array.isArray(ready.overlays));
  });
  await step('an overlay is copied, listed, looked at and taken away', async () => {
    await sandbox.runCommand('mkdir -p /tmp/template/src && echo 1 > /tmp/template/src/a && echo 2 > /tmp/template/b.log');
    const made = await sandbox.filesystem.overlay.create({
      source: '/tmp/template', target: 'project', ignore: ['*.log'], strategy: 'copy', waitForCompletion: true,
    });
    assert.equal(made.copyStatus, 'complete');
    assert.equal(made.stats.copiedFiles, 1);
    assert.equal((await sandbox.runCommand('cat project/src/a; ls project')).stdout, '1\nsrc\n');
    assert.ok((await sandbox.filesystem.overlay.list()).some((one) => one.id === made.id));
    assert.equal((await sandbox.filesystem.overlay.retrieve(made.id)).target, made.target);
    assert.equal((await sandbox.filesystem.overlay.waitForCompletion(made.id)).id, made.id);
    await sandbox.filesystem.overlay.destroy(made.id);
    assert.ok(!(await sandbox.filesystem.overlay.list()).some((one) => one.id === made.id));
    assert.equal((await sandbox.runCommand('test -e project/src/a')).exitCode, 1);
  });
  await step('json in place of binary messages', async () => {
    const plain = new client.Sandbox({
      sandboxUrl: sandbox.getSandboxUrl(), sandboxId: sandbox.sandboxId, provider: 'x', token: sandbox.getToken(),
      protocol: 'json',
    });
    const ran = await plain.runCommand('echo json', { onStdout: () => {} });
    assert.equal(ran.stdout, 'json\n');
    await plain.disconnect();
  });
}

tour(async () => {
  const sandbox = await gateway();
  if (!sandbox) return;
  await steps.about(sandbox, sandbox.provider);
  await steps.commands(sandbox);
  await streams(sandbox);
  await steps.code(sandbox);
  await steps.files(sandbox);
  await steps.terminals(sandbox, {
    retrieved: (id) => sandbox.terminal.retrieve(id),
    afterDestroy: 'stopped',
  });
  await steps.watchers(sandbox);
  await steps.signals(sandbox);
  await steps.environment(sandbox);
  await steps.servers(sandbox, { serverOptions: { restart_policy: 'never', stop_timeout_ms: 500 } });
  await more(sandbox);
  await steps.tokens(sandbox, {});
  await steps.children(sandbox);
  await named(sandbox);
  await step('destroy', async () => {
    const id = sandbox.sandboxId;
    await sandbox.destroy();
    assert.equal(await compute.sandbox.getById(id), null);
  });
});
