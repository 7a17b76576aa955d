// A private certificate authority, and a browser that trusts it.

import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { temporaryFolder } from './processes.mjs';

const tool = promisify(execFile);

/** The authority, a certificate that it signed for `localhost` and `*.example.test`, and a home folder whose browser trusts it. */
export async function makeAuthority() {
  const dir = await temporaryFolder();
  const file = (name) => path.join(dir, name);
  const openssl = (...args) => tool('openssl', args, { cwd: dir });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=A private authority');
  await openssl('req', '-x509', ...newKey, '-keyout', 'key.pem', '-out', 'cert.pem', '-subj', '/CN=localhost',
    '-CA', 'ca.pem', '-CAkey', 'ca.key', '-addext', 'subjectAltName=DNS:localhost,DNS:*.example.test', '-addext', 'basicConstraints=critical,CA:FALSE');

  // Chromium on Linux reads the user's authorities from here.
  const trusted = file('.pki/nssdb');
  await mkdir(trusted, { recursive: true });
  await tool('certutil', ['-N', '-d', `sql:${trusted}`, '--empty-password']);
  await tool('certutil', ['-A', '-d', `sql:${trusted}`, '-n', 'private', '-t', 'C,,', '-i', file('ca.pem')]);
  return {
    home: dir,
    certificate: await readFile(file('ca.pem')),
    certFile: file('cert.pem'),
    keyFile: file('key.pem'),
    tls: async () => ({ cert: await readFile(file('cert.pem')), key: await readFile(file('key.pem')) }),
  };
}
