// The steps that both versions of the npm client go through, on one sandbox; `own` says what a version does otherwise.
'use strict';
const { assert, step, eventually } = require('./harness.cjs');

async function commands(sandbox) {
  await step('runCommand tells both outputs, the code and the time', async () => {
    const ran = await sandbox.runCommand('echo out; echo err >&2; exit 3');
    assert.equal(ran.stdout, 'out\n');
    assert.equal(ran.stderr, 'err\n');
    assert.equal(ran.exitCode, 3);
    assert.ok(ran.durationMs >= 0);
  });
  await step('runCommand takes a folder and variables', async () => {
    const ran = await sandbox.runCommand('echo $PWD $NAME', { cwd: '/tmp', env: { NAME: 'it is' } });
    assert.equal(ran.stdout, '/tmp it is\n');
  });
  await step('runCommand in the background answers at once', async () => {
    const began = Date.now();
    await sandbox.runCommand('sleep 5; touch /tmp/late', { background: true });
    assert.ok(Date.now() - began < 4000);
  });
  await step('run.command takes a shell', async () => {
    const ran = await sandbox.run.command('echo "$0"', { shell: '/bin/sh' });
    assert.equal(ran.stdout, '/bin/sh\n');
  });
  await step('execute', async () => {
    const ran = await sandbox.execute({ command: 'echo once', shell: 'sh', background: false });
    assert.equal(ran.data.stdout, 'once\n');
    assert.equal(ran.data.exit_code, 0);
  });
  await step('runCommandRequest is what all of them send', async () => {
    const ran = await sandbox.runCommandRequest({ command: 'true' });
    assert.equal(ran.data.exit_code, 0);
  });
}

async function code(sandbox) {
  for (const [text, language, output] of [
    ['print(6 * 7)', 'python', '42\n'],
    ['console.log(6 * 7)', 'node', '42\n'],
    ['console.log([1].length)', 'javascript', '1\n'],
    ['print("x")', 'python3', 'x\n'],
    ['console.log("js")', 'js', 'js\n'],
    ['echo ${BASH_VERSION:+bash}', 'bash', 'bash\n'],
    ['echo sh', 'sh', 'sh\n'],
  ]) {
    await step(`run.code in ${language}`, async () => {
      assert.deepEqual(await sandbox.run.code(text, { language }), { output, exitCode: 0, language });
    });
  }
  await step('runCode finds out which language it is', async () => {
    assert.equal((await sandbox.runCode('import os\nprint(len(os.sep))')).language, 'python');
    assert.equal((await sandbox.runCode('const one = 1;\nconsole.log(one);')).language, 'node');
  });
  await step('runCode tells both outputs in one, and the code', async () => {
    const ran = await sandbox.runCode('import sys\nprint("a", flush=True)\nsys.stderr.write("b")\nsys.exit(4)', 'python');
    assert.deepEqual([ran.output, ran.exitCode], ['a\nb', 4]);
  });
  await step('runCodeRequest names what it does not know', async () => {
    await assert.rejects(sandbox.runCodeRequest('x', 'cobol'), /API request failed \(400\): language must be one of/);
  });
}

async function files(sandbox) {
  const path = '/tmp/a folder/ü %41.txt';
  await step('filesystem writes and reads', async () => {
    await sandbox.filesystem.writeFile(path, 'text ✓');
    assert.equal(await sandbox.filesystem.readFile(path), 'text ✓');
  });
  await step('filesystem.readdir', async () => {
    const [entry, ...others] = await sandbox.filesystem.readdir('/tmp/a folder');
    assert.equal(others.length, 0);
    assert.equal(entry.name, 'ü %41.txt');
    assert.equal(entry.type, 'file');
    assert.equal(entry.size, 8);
    assert.ok(entry.modified instanceof Date && !Number.isNaN(entry.modified.getTime()));
  });
  await step('filesystem.mkdir and exists', async () => {
    await sandbox.filesystem.mkdir('/tmp/made/deep');
    assert.equal(await sandbox.filesystem.exists('/tmp/made/deep'), true);
    assert.equal(await sandbox.filesystem.exists('/tmp/never'), false);
    const [deep] = await sandbox.filesystem.readdir('/tmp/made');
    assert.equal(deep.type, 'directory');
  });
  await step('filesystem.remove', async () => {
    await sandbox.filesystem.remove(path);
    assert.equal(await sandbox.file.exists(path), false);
    await sandbox.filesystem.remove('/tmp/made');
    assert.equal(await sandbox.filesystem.exists('/tmp/made'), false);
  });
  await step('file creates, lists, reads, finds and destroys', async () => {
    const made = await sandbox.file.create('/tmp/f/one.txt', '1');
    assert.deepEqual([made.name, made.path, made.size, made.is_dir], ['one.txt', '/tmp/f/one.txt', 1, false]);
    assert.equal((await sandbox.file.list('/tmp/f')).length, 1);
    assert.ok((await sandbox.file.list()).some((one) => one.path === '/tmp'));
    assert.equal(await sandbox.file.retrieve('/tmp/f/one.txt'), '1');
    assert.equal(await sandbox.file.exists('/tmp/f/one.txt'), true);
    await sandbox.file.destroy('/tmp/f/one.txt');
    assert.equal(await sandbox.file.exists('/tmp/f/one.txt'), false);
  });
  await step('file.batchWrite writes and deletes, each by itself', async () => {
    const results = await sandbox.file.batchWrite([
      { path: '/tmp/f/two', operation: 'write', content: '2' },
      { path: '/tmp/f/never', operation: 'delete' },
      { path: '/tmp/f/three', operation: 'write', content: '3' },
    ]);
    assert.deepEqual(results.map((one) => one.success), [true, false, true]);
    assert.match(results[1].error, /no such file/);
    assert.equal(await sandbox.readFile('/tmp/f/three'), '3');
  });
  await step('getFile tells what it is', async () => {
    assert.equal((await sandbox.getFile('/tmp/f/two')).data.file.size, 1);
    await assert.rejects(sandbox.getFile('/tmp/f/never'), /API request failed \(404\)/);
  });
}

async function terminals(sandbox, own) {
  const named = await step('a terminal without a PTY runs commands', async () => {
    const terminal = await sandbox.terminal.create({ pty: false });
    assert.equal(terminal.pty, false);
    assert.equal(terminal.isPTY(), false);
    assert.equal(terminal.channel, null);
    assert.equal(terminal.getChannel(), null);
    assert.equal(terminal.isRunning(), false);
    const ran = await terminal.command.run('echo in; exit 2');
    assert.deepEqual([ran.stdout, ran.exitCode, ran.status, ran.stderr], ['in\n', 2, 'failed', '']);
    assert.ok(ran.durationMs >= 0 && ran.startedAt);
    assert.throws(() => terminal.write('x'), /only available for PTY/);
    return terminal;
  });
  if (!named) return;
  await step('its commands are listed, looked at and waited for', async () => {
    const begun = await named.command.run('sleep 0.3; echo later', { background: true });
    assert.equal(begun.status, 'running');
    await begun.wait(10);
    assert.deepEqual([begun.status, begun.stdout, begun.exitCode], ['completed', 'later\n', 0]);
    assert.ok(Date.parse(begun.finishedAt) >= Date.parse(begun.startedAt));
    const [first, second] = await named.command.list();
    assert.equal(second.id, begun.id);
    await first.refresh();
    assert.equal(first.stdout, 'in\n');
    assert.equal((await named.command.retrieve(begun.id)).stdout, 'later\n');
    assert.equal((await sandbox.listCommands(named.id)).data.count, 2);
    assert.equal((await sandbox.getCommand(named.id, begun.id)).data.stdout, 'later\n');
    assert.equal((await sandbox.waitForCommand(named.id, begun.id, 5)).data.status, 'completed');
    assert.equal((await named.execute('echo old')).data.stdout, 'old\n');
  });
  await step('it is listed, found again and ended', async () => {
    const listed = await sandbox.terminal.list();
    assert.ok(listed.some((one) => one.id === named.getId()));
    assert.equal((await own.retrieved(named.id)).id, named.id);
    await named.destroy();
    assert.equal(named.getStatus(), own.afterDestroy || named.status);
    await sandbox.disconnect();
    await assert.rejects(sandbox.terminal.retrieve(named.id), /404/);
  });
  for (const encoding of ['raw', 'base64']) {
    await step(`a shell on a PTY, its output ${encoding}`, async () => {
      const began = Date.now();
      const terminal = await sandbox.terminal.create({ pty: true, shell: '/bin/bash', encoding });
      assert.ok(Date.now() - began < 4000, 'the client waited in vain for terminal:created');
      assert.ok(terminal.isPTY() && terminal.isRunning() && terminal.channel);
      let output = '';
      const heard = (data) => {
        output += data;
      };
      terminal.on('output', heard);
      terminal.write('stty size; echo "sum $((40 + 2))"\n');
      await eventually(() => output.includes('sum 42'), `output: ${output}`);
      terminal.resize(123, 45);
      terminal.write('stty size; echo "again $((40 + 3))"\n');
      await eventually(() => output.includes('45 123') && output.includes('again 43'), 'the new size');
      assert.ok((await sandbox.terminal.list()).some((one) => one.id === terminal.id));
      terminal.off('output', heard);
      await terminal.destroy();
      await eventually(() => terminal.status === 'stopped', 'the status after the end');
    });
  }
  await step('terminal.destroy by its id', async () => {
    const { id } = await sandbox.terminal.create();
    await sandbox.terminal.destroy(id);
    assert.ok(!(await sandbox.terminal.list()).some((one) => one.id === id));
  });
  await step('a shell that ends tells so', async () => {
    const terminal = await sandbox.createTerminal('/bin/bash');
    let ended = false;
    terminal.on('destroyed', () => {
      ended = true;
    });
    terminal.write('exit\n');
    await eventually(() => ended, 'terminal:destroyed');
    assert.equal(terminal.isRunning(), false);
  });
}

async function watchers(sandbox) {
  await step('a watcher tells of changes, with contents, and not of what it ignores', async () => {
    await sandbox.filesystem.mkdir('/tmp/watched');
    const watcher = await sandbox.watcher.create('/tmp/watched', { includeContent: true, ignored: ['*.tmp'] });
    assert.ok(watcher.getId() && watcher.getChannel() && watcher.isActive());
    assert.equal(watcher.getPath(), '/tmp/watched');
    assert.equal(watcher.getStatus(), 'active');
    assert.equal(watcher.isIncludingContent(), true);
    assert.deepEqual(watcher.getIgnoredPatterns(), ['*.tmp']);
    const events = [];
    const heard = (event) => events.push(event);
    watcher.on('change', heard);
    await sandbox.filesystem.writeFile('/tmp/watched/a.tmp', 'no');
    await sandbox.filesystem.writeFile('/tmp/watched/a.txt', 'seen');
    const told = await eventually(
      () => events.find((one) => one.path.endsWith('a.txt') && one.content === 'seen'),
      'the change of a.txt',
    );
    assert.ok(['add', 'change'].includes(told.event));
    await sandbox.filesystem.remove('/tmp/watched/a.txt');
    await eventually(() => events.some((one) => one.event === 'unlink'), 'the removal of a.txt');
    assert.ok(!events.some((one) => one.path.endsWith('a.tmp')));
    assert.ok((await sandbox.watcher.list()).some((one) => one.id === watcher.getId()));
    assert.equal((await sandbox.watcher.retrieve(watcher.getId())).path, '/tmp/watched');
    watcher.off('change', heard);
    await watcher.destroy();
    assert.ok(!(await sandbox.watcher.list()).some((one) => one.id === watcher.getId()));
  });
  await step('watcher.destroy by its id; contents in base64', async () => {
    const watcher = await sandbox.watcher.create('/tmp/watched', { includeContent: true, encoding: 'base64' });
    const events = [];
    watcher.on('change', (event) => events.push(event));
    await sandbox.filesystem.writeFile('/tmp/watched/b.txt', 'coded');
    await eventually(() => events.some((one) => one.content === 'coded'), 'the decoded content');
    await sandbox.watcher.destroy(watcher.getId());
  });
}

async function signals(sandbox) {
  await step('signals are told: ports, readiness, errors', async () => {
    const service = await sandbox.signal.start();
    assert.ok(service.isActive());
    assert.equal(service.getStatus(), 'active');
    assert.equal(service.getChannel(), 'signals');
    const ports = [];
    const errors = [];
    const all = [];
    const heard = (event) => ports.push(event);
    service.on('port', heard);
    service.on('error', (event) => errors.push(event));
    service.on('signal', (event) => all.push(event));
    await sandbox.signal.emitPort(4001, 'open', 'http://here:4001');
    await sandbox.emitPortSignalAlt(4001, 'close');
    await sandbox.signal.emitServerReady(4002, 'http://here:4002');
    await sandbox.signal.emitError('it broke');
    await eventually(() => errors.length === 1 && ports.length >= 3, 'the signals');
    assert.equal(errors[0].message, 'it broke');
    assert.ok(ports.some((one) => one.signal === 'server-ready' && one.port === 4002));
    assert.ok(ports.some((one) => one.url === 'http://here:4001'));
    assert.ok(all.length >= 4);
    assert.equal((await sandbox.signal.status()).status, 'active');
    service.off('port', heard);
    await service.stop();
    assert.equal((await sandbox.signal.status()).status, 'stopped');
    await sandbox.signal.stop();
  });
}

async function environment(sandbox) {
  const file = '/tmp/app.env';
  await step('environment files keep what is set, and lose what is removed', async () => {
    assert.equal(await sandbox.env.exists(file), false);
    assert.deepEqual((await sandbox.env.update(file, { A: '1', B: 'two words', C: "it's $x" })).sort(), ['A', 'B', 'C']);
    assert.equal(await sandbox.env.exists(file), true);
    assert.deepEqual(await sandbox.env.retrieve(file), { A: '1', B: 'two words', C: "it's $x" });
    assert.deepEqual(await sandbox.env.remove(file, ['A']), ['A']);
    assert.deepEqual(Object.keys(await sandbox.env.retrieve(file)).sort(), ['B', 'C']);
  });
}

async function servers(sandbox, own) {
  const serve = 'exec python3 -u -m http.server "$PORT" --bind 127.0.0.1';
  await step('a server starts, is seen, restarts and stops', async () => {
    await sandbox.filesystem.mkdir('/tmp/site');
    const begun = await sandbox.server.start({
      slug: 'site',
      start: `echo starting; ${serve}`,
      path: '/tmp/site',
      environment: { MARK: 'm' },
      port: 4100,
      ...own.serverOptions,
    });
    assert.equal(begun.slug, 'site');
    const up = async () => {
      const found = await sandbox.server.retrieve('site');
      return ['running', 'ready'].includes(found.status) && found.port === 4100 && found;
    };
    assert.ok((await eventually(up, 'the server at its port')).url);
    assert.ok((await sandbox.server.list()).some((one) => one.slug === 'site'));
    const ask = 'python3 -c "import urllib.request as u; print(u.urlopen(\'http://127.0.0.1:4100/\').status)"';
    await eventually(async () => (await sandbox.runCommand(ask)).stdout === '200\n', 'an answer of the server');
    assert.equal((await sandbox.server.restart('site')).slug, 'site');
    await eventually(up, 'the server again');
    await sandbox.server.updateStatus('site', 'ready');
    assert.equal((await sandbox.server.retrieve('site')).status, 'ready');
    await sandbox.server.stop('site');
  });
  await step('a server that is not there is an error', async () => {
    await assert.rejects(sandbox.server.retrieve('nobody'), /API request failed \(404\)/);
  });
}

async function tokens(sandbox, own) {
  const made = await step('a session token is made, listed and looked at', async () => {
    const token = await sandbox.sessionToken.create({ description: 'for a page', expiresIn: 3600 });
    assert.ok(token.id && token.token && Date.parse(token.expiresAt) > Date.now() && token.createdAt);
    const listed = (await sandbox.sessionToken.list()).find((one) => one.id === token.id);
    assert.equal(listed.description, 'for a page');
    assert.equal((await sandbox.sessionToken.retrieve(token.id)).description, 'for a page');
    return token;
  });
  if (!made) return;
  const own_token = sandbox.getToken();
  await step('a session token runs commands and makes no tokens', async () => {
    sandbox.setToken(made.token);
    try {
      assert.equal((await sandbox.auth.status()).tokenType, 'session_token');
      assert.equal((await sandbox.runCommand('echo by token')).stdout, 'by token\n');
      await assert.rejects(sandbox.sessionToken.create(), /Access token required/);
      await assert.rejects(sandbox.magicLink.create(), /Access token required/);
    } finally {
      sandbox.setToken(own_token);
    }
  });
  await step('a revoked one is refused', async () => {
    await sandbox.sessionToken.revoke(made.id);
    sandbox.setToken(made.token);
    try {
      await assert.rejects(sandbox.runCommand('true'), /API request failed \(401\)/);
    } finally {
      sandbox.setToken(own_token);
    }
  });
  await step('a magic link lets a browser in, once', async () => {
    const link = await sandbox.magicLink.create({ redirectUrl: '/play/' });
    assert.ok(Date.parse(link.expiresAt) > Date.now() && link.redirectUrl);
    const first = await fetch(link.url, { redirect: 'manual' });
    assert.equal(first.status, 302);
    const cookie = first.headers.get('set-cookie');
    assert.match(cookie, /HttpOnly/i);
    const page = await fetch(`${sandbox.getSandboxUrl()}/play/`, { headers: { cookie: cookie.split(';')[0] } });
    assert.equal(page.status, 200);
    assert.equal((await fetch(link.url, { redirect: 'manual' })).status, 400);
  });
  await step('auth.status and auth.info', async () => {
    const status = await sandbox.auth.status();
    assert.deepEqual([status.authenticated, status.tokenType], [true, 'access_token']);
    const info = await sandbox.auth.info();
    for (const endpoint of Object.values(info.endpoints)) assert.ok(endpoint);
  });
}

async function children(sandbox) {
  await step('a child sandbox is made, seen and ended; the main one cannot be', async () => {
    const made = await sandbox.child.create();
    assert.ok(made.subdomain && made.url && made.created_at);
    assert.equal(made.is_main, false);
    const listed = await sandbox.child.list();
    assert.ok(listed.some((one) => one.subdomain === made.subdomain));
    assert.equal((await sandbox.child.retrieve(made.subdomain)).url, made.url);
    const main = listed.find((one) => one.is_main) || { subdomain: (await sandbox.getServerInfo()).data.main_subdomain };
    await assert.rejects(sandbox.child.destroy(main.subdomain), /API request failed \(400\)/);
    await sandbox.child.destroy(made.subdomain, { deleteFiles: true });
    assert.ok(!(await sandbox.child.list()).some((one) => one.subdomain === made.subdomain));
  });
}

async function about(sandbox, provider) {
  await step('health, information and addresses', async () => {
    assert.equal((await sandbox.health()).status, 'ok');
    const info = (await sandbox.getServerInfo()).data;
    assert.equal(info.auth_enabled, true);
    assert.ok(info.version && info.sandbox_url && info.main_subdomain);
    assert.ok(info.sandbox_count >= 1);
    const own = await sandbox.getInfo();
    assert.deepEqual([own.id, own.provider, own.status], [sandbox.sandboxId, provider, 'running']);
    assert.equal(sandbox.getInstance(), sandbox);
    assert.throws(() => sandbox.getProvider(), /not available/);
    // It builds the address of the host's name alone and drops the port: of use where `previews.domain` is set.
    assert.equal(await sandbox.getUrl({ port: 3000 }), 'https://127-3000.0.0.1');
    assert.equal(await sandbox.getUrl({ port: 3000, protocol: 'http' }), 'http://127-3000.0.0.1');
  });
}

module.exports = {
  commands, code, files, terminals, watchers, signals, environment, servers, tokens, children, about,
};
