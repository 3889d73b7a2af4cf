// Takes the avatar style pixel-art apart, and renders references of it.
//
//   npm install --prefix backend/train/portraits
//   node backend/train/portraits/atlas.mjs atlas assets/portraits/pixel_art.json
//   node backend/train/portraits/atlas.mjs render OPTIONS.json SHEET.bin
//
// PORTRAITS_MODULES names another folder with node_modules, where the packages are installed elsewhere.
//
// The drawings of @dicebear/pixel-art are CC0 1.0 (its LICENSE and its `meta` say so, and this script refuses another
// licence); its code and @dicebear/core are MIT, @resvg/resvg-js is MPL-2.0, and none of that code ships.
//
// atlas: every variant of every component becomes a list of operations, bottom first: [paints, opacity, mask]. paints
// are colour slots with their opacities, flattened into one colour; mask is the 16x16 pixels it covers, row by row.
// render: OPTIONS.json holds a list of DiceBear options; SHEET.bin gets 16 x 16 x 3 bytes for each.
//
// One correction: the style's beards sit behind a mask whose type is luminance, so a beard fades with the luminance of
// the hair colour and black ones cannot be seen. That mask is a shape in the hair colour at opacity .9, which makes
// sense as an alpha mask; both the atlas and the references read it as one.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const home = process.env.PORTRAITS_MODULES ?? import.meta.dirname; // the folder that holds node_modules
const require = createRequire(path.join(home, 'package.json'));
const load = (name) => import(require.resolve(name));
const { createAvatar } = await load('@dicebear/core');
const style = await load('@dicebear/pixel-art');
const { Resvg } = await load('@resvg/resvg-js');

const SIDE = 16;
const COMPONENTS = ['accessories', 'clothing', 'eyes', 'glasses', 'beard', 'mouth', 'hair', 'hat']; // in drawing order
const SLOTS = ['skin', 'accessories', 'clothing', 'eyes', 'glasses', 'mouth', 'hair', 'hat'];
const KNOWN = { '#fff': 'white', '#000': 'black' };
const NOTHING = Object.fromEntries(COMPONENTS.map((name) => [name, []]));
const SENTINELS = SLOTS.map((_, index) => `00fe${(16 + index).toString(16)}`); // colours that nothing else has

const licence = style.meta.license.name;
if (licence !== 'CC0 1.0') throw new Error(`the style is under ${licence}, not CC0 1.0`);

/** Pixels of an SVG body on the native grid, RGBA. */
function rasterise(body) {
  const frame = `xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIDE} ${SIDE}" shape-rendering="crispEdges"`;
  const svg = `<svg ${frame} fill="none">${body}</svg>`;
  return new Resvg(svg, { fitTo: { mode: 'width', value: SIDE } }).render().pixels;
}

/** The hex mask of a path: it must cover whole pixels. */
function maskOf(d, rule) {
  const pixels = rasterise(`<path d="${d}" fill="#fff" fill-rule="${rule}"/>`);
  let bits = '';
  for (let i = 3; i < pixels.length; i += 4) {
    if (pixels[i] !== 0 && pixels[i] !== 255) throw new Error(`a path covers part of a pixel: ${d}`);
    bits += pixels[i] ? '1' : '0';
  }
  return bits.match(/.{4}/g).map((four) => parseInt(four, 2).toString(16)).join('');
}

const attribute = (tag, name) => tag.match(new RegExp(`(?<![-\\w])${name}="([^"]*)"`))?.[1];

function slotOf(fill) {
  const name = KNOWN[fill] ?? SLOTS[SENTINELS.indexOf(fill.slice(1))];
  if (!name) throw new Error(`a fill that is no slot: ${fill}`);
  return name;
}

/** Operations of an SVG body made of paths, groups and masked groups. */
function operationsOf(body) {
  const made = [];
  const masks = {};
  const open = [{ rule: 'nonzero', fill: undefined }];
  for (const [tag] of body.matchAll(/<[^>]*>/g)) {
    const inherited = open.at(-1);
    if (/^<\/(g|mask)/.test(tag)) {
      const closed = open.pop();
      if (closed.masked) made.push([closed.paints, closed.masked.opacity, closed.masked.mask]);
    } else if (tag.startsWith('<mask')) open.push({ ...inherited, defines: attribute(tag, 'id') });
    else if (tag.startsWith('<g')) {
      const masked = masks[attribute(tag, 'mask')?.slice(5, -1)];
      const rule = attribute(tag, 'fill-rule') ?? inherited.rule;
      open.push({ rule, fill: attribute(tag, 'fill') ?? inherited.fill, masked, paints: [] });
    } else if (tag.startsWith('<path')) {
      const rule = attribute(tag, 'fill-rule') ?? inherited.rule;
      const opacity = Number(attribute(tag, 'fill-opacity') ?? attribute(tag, 'opacity') ?? 1);
      const mask = maskOf(attribute(tag, 'd'), rule);
      const paint = slotOf(attribute(tag, 'fill') ?? inherited.fill);
      if (inherited.defines) masks[inherited.defines] = { opacity, mask };
      else if (inherited.masked) inherited.paints.push([paint, opacity]); // these cover the whole grid
      else made.push([[[paint, 1]], opacity, mask]);
    } else throw new Error(`unexpected ${tag}`);
  }
  return made;
}

function bodyOf(options) {
  const colours = Object.fromEntries(SLOTS.map((slot, index) => [`${slot}Color`, [SENTINELS[index]]]));
  const first = { pick: (list, other) => list?.[0] ?? other, bool: (chance) => chance > 0 };
  return style.create({ prng: first, options: { ...colours, ...options } }).body;
}

function atlas(file) {
  const base = bodyOf(NOTHING);
  const properties = style.schema.properties;
  const layers = { skin: { base: operationsOf(base) } };
  for (const component of COMPONENTS) {
    const shown = { [`${component}Probability`]: 100 };
    layers[component] = {};
    for (const variant of [...properties[component].items.enum].sort()) {
      const body = bodyOf({ ...NOTHING, ...shown, [component]: [variant] });
      layers[component][variant] = operationsOf(body.slice(base.length));
    }
  }
  const manifest = path.join(home, 'node_modules/@dicebear/pixel-art/package.json');
  const provenance = {
    what: 'The avatar style Pixel Art by DiceBear, taken apart by backend/train/portraits/atlas.mjs',
    licence: 'CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/',
    source: style.meta.source,
    package: `@dicebear/pixel-art ${JSON.parse(readFileSync(manifest, 'utf8')).version}`,
  };
  const palettes = Object.fromEntries(SLOTS.map((slot) => [slot, properties[`${slot}Color`].default]));
  const lines = Object.entries(layers).map(([component, variants]) => {
    const rows = Object.entries(variants).map(([name, made]) => `   "${name}": ${JSON.stringify(made)}`);
    return `  "${component}": {\n${rows.join(',\n')}\n  }`;
  });
  const slots = ['white', 'black', ...SLOTS];
  const head = JSON.stringify({ ...provenance, grid: [SIDE, SIDE], slots, palettes }, null, 1);
  writeFileSync(file, `${head.slice(0, -2)},\n "layers": {\n${lines.join(',\n')}\n }\n}\n`);
}

function render(optionsFile, file) {
  const sheets = JSON.parse(readFileSync(optionsFile, 'utf8')).map((options) => {
    const svg = createAvatar(style, { ...options, size: SIDE }).toString();
    const corrected = svg.replaceAll('style="mask-type:luminance"', 'mask-type="alpha"');
    const pixels = new Resvg(corrected).render().pixels;
    if (pixels.length !== SIDE * SIDE * 4) throw new Error('a render of another size');
    return Buffer.from(pixels.filter((_, index) => index % 4 < 3));
  });
  writeFileSync(file, Buffer.concat(sheets));
}

const [command, ...files] = process.argv.slice(2);
if (command === 'atlas' && files.length === 1) atlas(...files);
else if (command === 'render' && files.length === 2) render(...files);
else throw new Error('usage: atlas.mjs atlas FILE | atlas.mjs render OPTIONS.json SHEET.bin');
