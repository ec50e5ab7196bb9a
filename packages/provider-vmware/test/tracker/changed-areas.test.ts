import { isProviderError, type Tile } from "@diskferry/core/provider";
import { describe, expect, test } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { type AreasPage, tilesOfAreas } from "../../src/tracker/changed-areas.ts";

const seed = seedOf(20_261_121);
const mebi = 1 << 20;

type Area = { start: number; length: number };

/** A server's answers about `areas`, cut by a number of areas and by a span, as vCenter cuts them. */
function pagesOf(areas: readonly Area[], size: number, limit: number, span: number) {
  return (startOffset: number): Promise<AreasPage> => {
    let end = Math.min(size, startOffset + span);
    const found: Area[] = [];
    for (const area of areas) {
      const start = Math.max(area.start, startOffset);
      const stop = Math.min(area.start + area.length, end);
      if (stop <= start) continue;
      if (found.length === limit) {
        end = start;
        break;
      }
      found.push({ start, length: stop - start });
    }
    return Promise.resolve({ startOffset, length: end - startOffset, areas: found });
  };
}

async function list(
  page: (startOffset: number) => Promise<AreasPage>,
  size: number,
  range: { from?: number; to?: number } = {},
): Promise<Tile[]> {
  const tiles: Tile[] = [];
  const { from = 0, to = size } = range;
  for await (const tile of tilesOfAreas({ page, size, from, to, between: "unchanged", what: "disk 2000" })) {
    tiles.push(tile);
  }
  return tiles;
}

function tiled(tiles: readonly Tile[], from: number, to: number): void {
  let at = from;
  for (const { offset, length } of tiles) {
    if (offset !== at || !(length > 0)) expect.fail(`a tile of ${length} bytes at ${offset} where ${at} had to follow`);
    at += length;
  }
  expect(at).toBe(to);
}

test("any changes, in pages of any size, are tiled from end to end and none is left out", async () => {
  const random = randomFrom(seed);
  for (let round = 0; round < 200; round++) {
    const size = 512 * (1 + Math.floor(random() * 40_000));
    const areas: Area[] = [];
    for (let at = 0; at < size;) {
      const start = at + 512 * Math.floor(random() * 400);
      const length = Math.min(512 * (1 + Math.floor(random() * 300)), size - start);
      if (length <= 0) break;
      areas.push({ start, length });
      at = start + length + 512 * Math.floor(random() * 3);
    }
    const from = 512 * Math.floor(random() * (size / 512));
    const to = Math.min(size, from + 512 * (1 + Math.floor(random() * (size / 512))));
    // However small the areas are, so many of them span the least that a page has to cover.
    const page = pagesOf(areas, size, 200 + Math.floor(random() * 50), 65_536 * (1 + Math.floor(random() * 30)));
    const tiles = await list(page, size, { from, to });
    tiled(tiles, from, to);
    const changed = new Uint8Array(size / 512);
    for (const { offset, length, kind } of tiles) {
      if (kind === "changed") changed.fill(1, offset / 512, (offset + length) / 512);
    }
    const missed = areas.filter(({ start, length }) =>
      changed.subarray(Math.max(start, from) / 512, Math.min(start + length, to) / 512).includes(0),
    );
    expect(missed, `seed ${seed} round ${round}`).toEqual([]);
  }
});

test("an answer shorter than the disk is asked for again from where it ended", async () => {
  const asked: number[] = [];
  const page = pagesOf([{ start: 3 * mebi, length: 4096 }], 4 * mebi, 2000, mebi);
  const tiles = await list((start) => {
    asked.push(start);
    return page(start);
  }, 4 * mebi);
  expect(asked).toEqual([0, mebi, 2 * mebi, 3 * mebi]);
  expect(tiles.filter(({ kind }) => kind === "changed")).toEqual([{ offset: 3 * mebi, length: 4096, kind: "changed" }]);
});

test("nothing is asked at or behind the end of the disk, whose last answer may reach beyond it", async () => {
  const size = mebi + 512;
  const asked: number[] = [];
  const tiles = await list((startOffset) => {
    asked.push(startOffset);
    return Promise.resolve({ startOffset, length: 2 * mebi, areas: [{ start: mebi, length: 65_536 }] });
  }, size);
  expect(asked).toEqual([0]);
  expect(tiles.at(-1)).toEqual({ offset: mebi, length: 512, kind: "changed" });
});

test("areas that end inside a sector are widened to it", async () => {
  const tiles = await list(
    (startOffset) => Promise.resolve({ startOffset, length: mebi, areas: [{ start: 1000, length: 100 }] }),
    mebi,
  );
  expect(tiles[1]).toEqual({ offset: 512, length: 1024, kind: "changed" });
});

test("answers that end inside a sector lose nothing of it", async () => {
  const random = randomFrom(seed + 1);
  for (let round = 0; round < 100; round++) {
    const size = 512 * (200 + Math.floor(random() * 2000));
    const areas: Area[] = [];
    for (let at = Math.floor(random() * 9000); at < size;) {
      const length = Math.min(1 + Math.floor(random() * 3000), size - at);
      areas.push({ start: at, length });
      at += length + Math.floor(random() * 9000);
    }
    const tiles = await list(pagesOf(areas, size, 2000, 65_536 + Math.floor(random() * 9999)), size);
    tiled(tiles, 0, size);
    for (const { start, length } of areas) {
      const whole = tiles.filter(
        ({ kind, offset, length: bytes }) => kind === "changed" && offset < start + length && offset + bytes > start,
      );
      const covered = whole.reduce(
        (sum, tile) => sum + Math.min(tile.offset + tile.length, start + length) - Math.max(tile.offset, start),
        0,
      );
      expect(covered, `seed ${seed} round ${round}: ${start}+${length}`).toBe(length);
    }
  }
});

describe("an answer that proves nothing is TRACKING_LOST", () => {
  const size = 4 * mebi;
  const answer = (page: Partial<AreasPage>) => (startOffset: number) =>
    Promise.resolve({ startOffset, length: size, areas: [], ...page });
  test.for<[string, (startOffset: number) => Promise<AreasPage>]>([
    ["that does not advance", answer({ length: 0 })],
    ["of negative length", answer({ length: -512 })],
    ["about another offset", (at) => answer({ startOffset: at + 512 })(at)],
    ["that always begins at 0", (at) => answer({ startOffset: 0, length: mebi })(at)],
    ["with an empty area", answer({ areas: [{ start: 0, length: 0 }] })],
    ["with an area before it", (at) => answer({ length: mebi, areas: [{ start: at - 512, length: 512 }] })(at)],
    ["with an area behind it", answer({ length: mebi, areas: [{ start: 2 * mebi, length: 512 }] })],
    ["with an area that leaves it", answer({ length: mebi, areas: [{ start: 0, length: 2 * mebi }] })],
    [
      "with areas out of order",
      answer({
        areas: [
          { start: mebi, length: 512 },
          { start: 0, length: 512 },
        ],
      }),
    ],
    [
      "with areas that overlap",
      answer({
        areas: [
          { start: 0, length: 1024 },
          { start: 512, length: 512 },
        ],
      }),
    ],
    ["in endless small steps", answer({ length: 512 })],
  ])("%s", async ([, page]) => {
    const error: unknown = await list(page, size).catch((thrown: unknown) => thrown);
    expect(isProviderError(error) && error.code).toBe("TRACKING_LOST");
  });
});
