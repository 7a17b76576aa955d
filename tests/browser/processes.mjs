// Starts the real programs that a login needs: the server, the fake Postiz, a private PostgreSQL. Each ends with the test that
// started it, or at the latest with this process.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BUILT = process.env.BUILT ?? path.join(ROOT, 'target/debug');

// As in tests/fake_postiz.
export const CLIENT = { id: 'pca_fake0client0id', secret: 'pcs_fake0client0secret0that0must0not0leak' };

/**
 * A server in front of a fake Postiz of its own.
 *
 * `database` is a URL; without it the store is the embedded file. `publicUrl` makes SERVER_URL from the server's port, for a proxy
 * or for https. `env` is added to the server's environment. `registration` is fake-postiz' option of that name. The result's `log`
 * has the lines of the server's log so far.
 */
export async function startServer(t, { database, publicUrl = (port) => `http://localhost:${port}`, env = {}, registration = 'open' } = {}) {
  const port = await freePort();
  const url = publicUrl(port);
  const postiz = await startPostiz(t, { callback: `${url}/device/callback`, registration });
  const dir = await temporaryFolder();
  const environment = {
    HOST: '127.0.0.1',
    PORT: port,
    SERVER_URL: url,
    POSTIZ_FRONTEND_URL: postiz.url,
    POSTIZ_API_URL: postiz.url,
    POSTIZ_OAUTH_CLIENT_ID: CLIENT.id,
    POSTIZ_OAUTH_CLIENT_SECRET: CLIENT.secret,
    ...(database ? { DATABASE_URL: database } : { DATA_DIR: dir }),
    ...env,
  };
  const { log } = await start(t, 'postiz-auth-server', [], environment, dir);
  return { url, port, postiz, log };
}

/** The number of requests of this method and route that the server has answered with this status. */
export function countRequests(server, method, route, status) {
  const request = new RegExp(` method=${method} .* route=${route} status=${status} `);
  return server.log.filter((line) => request.test(line)).length;
}

/** Waits until `condition` is true, for 10 s at most. */
export async function waitUntil(condition) {
for (let tries = 0; tries < 200 && !condition(); tries++) await sleep(50);
if (!condition()) throw new Error(`timed out, not true yet: ${condition}`);
}

/** A fake Postiz. `callback` is that of its hand-made app; with `relay`, consent pages also offer a self-hosted instance. */
export async function startPostiz(t, { callback = '', registration = 'open', relay = false } = {}) {
  const args = ['--port', '0', '--callback', callback, '--registration', registration, ...(relay ? ['--relay'] : [])];
  const { line } = await start(t, 'examples/fake-postiz', args, {}, ROOT);
  return { url: line.match(/http:\/\/[\w.:]+/)[0] };
}

/** A PostgreSQL for one test file; `url` is its database. It ends with this process, since the guard watches its standard input. */
export async function startPostgres() {
  const [port, password] = [await freePort(), 'browser0tests'];
  const guard = spawn('sh', [path.join(ROOT, 'tests/it/support/postgres_guard.sh'), port, password, ''], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  const answers = createInterface({ input: guard.stdout })[Symbol.asyncIterator]();
  const answer = async () => (await answers.next()).value;
  const ready = await answer();
  if (ready !== 'ready') throw new Error(`cannot start PostgreSQL: ${ready}`);
  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres?sslmode=disable`,
    /** `stop`, `kill` or `start`. */
    async control(command) {
      guard.stdin.write(`${command}\n`);
      if ((await answer()) !== 'done') throw new Error(`PostgreSQL does not ${command}`);
    },
    async end() {
      guard.stdin.end();
      await once(guard, 'exit');
    },
  };
}

/** Runs one of the built programs, which must succeed. The promise of its output also has the process as `child`. */
export function run(program, args, env = {}) {
  return promisify(execFile)(path.join(BUILT, program), args, { env });
}

/** Starts the CLI, which prints one JSON object a line. */
export function startCli(t, args, env) {
  const child = spawn(path.join(BUILT, 'postiz'), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = once(child, 'close').then(([code]) => {
    running.delete(child);
    return code;
  });
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async next() {
      const { value, done } = await lines.next();
      if (done) throw new Error(`postiz ended:\n${said}`);
      return JSON.parse(value);
    },
    exitCode: () => ended,
  };
}

/** Starts one of the built programs and waits for its log line about listening. */
async function start(t, program, args, env, cwd) {
  const child = spawn(path.join(BUILT, program), args, { env, cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  running.add(child);
  const ended = once(child, 'exit').then(() => running.delete(child));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const log = [];
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      log.push(line);
      if (line.includes('listening')) resolve({ line, log });
    });
    child.on('error', reject);
    child.on('exit', () => reject(new Error(`${program} ended:\n${log.join('\n')}`)));
  });
}

const running = new Set();
const scratch = mkdtempSync(path.join(os.tmpdir(), 'postiz-browser-'));
process.on('exit', () => {
  running.forEach((child) => child.kill('SIGKILL'));
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** An empty folder, removed with this process. */
export function temporaryFolder() {
  return mkdtemp(path.join(scratch, 'folder-'));
}

/** A port on which no process listens, outside the range of ephemeral ports. */
export async function freePort() {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    const server = net.createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(() => true, () => false);
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
