// Other HTTP servers of a test: an attacker's site, and a reverse proxy in front of the server, which may be slow.

import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { buffer } from 'node:stream/consumers';

/** An attacker's site, which answers every request with this page and these `headers`; with `tls` it speaks https. */
export async function startSite(t, html, { tls, headers = () => ({}) } = {}) {
  const answer = (_, response) => {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', ...headers() });
    response.end(`<!doctype html><title>An attacker's site</title>${html()}`);
  };
  const port = await listen(t, tls ? createTlsServer(tls, answer) : createServer(answer));
  return { url: (host = '127.0.0.1') => `${tls ? 'https' : 'http'}://${host}:${port}/` };
}

/**
 * A reverse proxy on `port` in front of the server on the port `to(url)`. It forwards requests under `prefix`, without that prefix
 * if `strip` is set; with `tls` (`key` and `cert`) it speaks https. It reads a whole request, waits for `before`, and forwards the
 * request even if the client has left. It waits for `after` before it forwards the answer.
 */
export async function startProxy(t, { port, to, prefix = '', strip = false, tls, before = () => {}, after = () => {} }) {
  const relay = async (incoming, outgoing) => {
    if (!incoming.url.startsWith(`${prefix}/`)) return outgoing.writeHead(404).end('not under the prefix');
    const { method, headers } = incoming;
    const body = await buffer(incoming);
    await before(incoming);
    const inner = request({
      host: '127.0.0.1',
      port: to(incoming.url),
      method,
      path: strip ? incoming.url.slice(prefix.length) : incoming.url,
      headers: { ...headers, 'x-forwarded-for': incoming.socket.remoteAddress },
    });
    inner.on('response', async (answer) => {
      await after(incoming);
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    inner.on('error', () => outgoing.writeHead(502).end('the server is away'));
    inner.end(body);
  };
  await listen(t, tls ? createTlsServer(tls, relay) : createServer(relay), port);
}

async function listen(t, server, port = 0) {
  server.listen(port);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return server.address().port;
}
