// Renders avatars of further styles: what `backend.train.portraits.renders` asks for, 64 x 64 x 3 bytes each.
//
//   npm install --prefix backend/train/portraits
//   node backend/train/portraits/styles.mjs STYLE OPTIONS.json SHEET.bin
//
// STYLE is the name of a package, such as open-peeps; OPTIONS.json holds a list of DiceBear options, and what they leave
// open is the same each time. A style whose `meta` tells another licence than CC0 1.0 is refused. PORTRAITS_MODULES
// names another folder with node_modules.
// The code of @dicebear/core and @dicebear/collection is MIT, @resvg/resvg-js is MPL-2.0; none of it ships.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const SIDE = 64;
const home = process.env.PORTRAITS_MODULES ?? import.meta.dirname; // the folder that holds node_modules
const require = createRequire(path.join(home, 'package.json'));
const load = (name) => import(require.resolve(name));
const { createAvatar } = await load('@dicebear/core');
const styles = await load('@dicebear/collection');
const { Resvg } = await load('@resvg/resvg-js');

const [name, optionsFile, file] = process.argv.slice(2);
if (!file) throw new Error('usage: styles.mjs STYLE OPTIONS.json SHEET.bin');
const style = styles[name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase())];
if (!style) throw new Error(`no style is called ${name}`);
const licence = style.meta.license.name;
if (licence !== 'CC0 1.0') throw new Error(`the style ${name} is under ${licence}, not CC0 1.0`);

const sheets = JSON.parse(readFileSync(optionsFile, 'utf8')).map((options) => {
  const svg = createAvatar(style, { seed: '', ...options, size: SIDE }).toString();
  const { pixels } = new Resvg(svg, { font: { loadSystemFonts: false } }).render();
  if (pixels.length !== SIDE * SIDE * 4) throw new Error('a render of another size');
  return Buffer.from(pixels.filter((_, index) => index % 4 < 3));
});
writeFileSync(file, Buffer.concat(sheets));
