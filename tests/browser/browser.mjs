// The system's Chromium. Checks each page for violations of its Content-Security-Policy and, with axe, for accessibility.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';

import { chromium } from 'playwright-core';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// Without the first ones Chromium connects to Google at every start. Names under .test resolve to this machine, as in
// terminal.mjs. Root, as in a container, cannot use the sandbox.
const FLAGS = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--host-resolver-rules=MAP *.test 127.0.0.1',
  '--no-first-run',
  ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
];

const LAUNCH = { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, timeout: 30_000 };

/** One browser for a test file, with the environment `env`; `open` gives each test a new profile in it. */
export async function launch(options = {}) {
  return chromium.launch({ ...LAUNCH, ...options });
}

/** A browser with its own profile folder, for tests that need one, and with the environment `env`. */
export async function launchProfile(t, folder, options = {}) {
  const context = await chromium.launchPersistentContext(folder, { ...LAUNCH, ...options });
  t.after(() => context.close());
  return watch(context);
}

/** A new profile that records violations, signed in to the Postiz at `signedInTo` as `ada`. */
export async function open(t, browser, { signedInTo, ...options } = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  if (signedInTo) await signIn(context, signedInTo);
  return watch(context);
}

export async function signIn(context, postiz) {
  await context.addCookies([{ name: 'auth', value: 'ada', url: postiz }]);
}

function watch(context) {
  // Long, since machines that run tests are busy.
  context.setDefaultTimeout(20_000);
  /** The console messages about violations of a Content-Security-Policy so far. */
  context.violations = [];
  context.on('console', (message) => {
    if (/content security policy/i.test(message.text())) context.violations.push(message.text());
  });
  return context;
}

/** The heading of the confirm page. */
export const CONFIRM = 'Does your terminal show this code?';

/** Waits for the page with this heading, and checks what each page of the server must have. */
export async function expectPage(page, heading) {
  await page.getByRole('heading', { level: 1, name: heading }).waitFor();
  assert.equal(await page.getByRole('main').count(), 1);
  assert.match(await page.title(), / – Postiz command line$/);
  assert.deepEqual(page.context().violations, []);
}

/** Types the code into the form and submits it. */
export async function enterCode(page, code) {
  await page.getByLabel('Code').fill(code);
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** Presses "Continue" on the confirm page. */
export async function confirm(page) {
  await expectPage(page, CONFIRM);
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** Allows the login on Postiz' consent page. */
export async function authorize(page) {
  await page.getByRole('button', { name: 'Authorize' }).click();
}

/**
 * Checks all rules of WCAG 2.2, A to AAA, and axe's best practices. A page that `reloads` itself may break the two rules
 * against that: it works without scripts, has no input and little text, and says that it reloads.
 */
export async function expectAccessible(page, { reloads = false } = {}) {
  await page.evaluate(AXE);
  const tags = ['wcag2a', 'wcag2aa', 'wcag2aaa', 'wcag21a', 'wcag21aa', 'wcag21aaa', 'wcag22a', 'wcag22aa', 'wcag22aaa', 'best-practice'];
  const result = await page.evaluate((tags) => globalThis.axe.run({ runOnly: tags }), tags);
  const passed = result.passes.map((rule) => rule.id);
  assert.ok(passed.includes('color-contrast-enhanced'), 'the rules of level AAA did not run');
  const broken = [...result.violations, ...result.incomplete].filter(({ id }) => !reloads || !id.startsWith('meta-refresh'));
  assert.deepEqual(broken.map(({ id, nodes }) => ({ id, where: nodes.map((node) => node.html) })), []);
}
