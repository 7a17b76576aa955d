// Sites around the server: a stranger's, and a reverse proxy in front of it.

import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

/** A stranger's site, with this page at every address of it. */
export async function startSite(t, html) {
  const site = createServer((_, response) => {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(`<!doctype html><title>A stranger's site</title>${html()}`);
  });
  const port = await listen(t, site);
  return { url: (host = '127.0.0.1') => `http://${host}:${port}/` };
}

/**
 * A reverse proxy on `port` in front of the server that listens on `to()`. It takes what lies under `prefix`, and hands it on
 * without that prefix when `strip`; with `tls` (`key` and `cert`) it speaks https.
 */
export async function startProxy(t, { port, to, prefix = '', strip = false, tls }) {
  const relay = (incoming, outgoing) => {
    if (!incoming.url.startsWith(`${prefix}/`)) return outgoing.writeHead(404).end('not under the prefix');
    const { method, headers } = incoming;
    const inner = request({
      host: '127.0.0.1',
      port: to(),
      method,
      path: strip ? incoming.url.slice(prefix.length) : incoming.url,
      headers: { ...headers, 'x-forwarded-for': incoming.socket.remoteAddress },
    });
    inner.on('response', (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    inner.on('error', () => outgoing.writeHead(502).end('the server is away'));
    incoming.pipe(inner);
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
