import { usageError } from "./usage-error.ts";

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes for people: `512 B`, `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const step = Math.min(units.length - 1, bytes < 1024 ? 0 : Math.floor(Math.log2(bytes) / 10));
  return `${step === 0 ? bytes : (bytes / 1024 ** step).toFixed(1)} ${units[step]}`;
}

/** A time span for people: `0:07`, `12:30`, `3:05:00`, `2 d 4:00:00`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const two = (value: number): string => String(value).padStart(2, "0");
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours}:${two(minutes)}:${two(seconds % 60)}`;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

const multiples: Record<string, number> = {
  "": 1,
  b: 1,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

/** Bytes per second from text: `1048576`, `50MiB`, `100 MB/s`; undefined for anything else. */
export function bytesFrom(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*?)(?:\/s)?\s*$/i.exec(text);
  const multiple = Object.hasOwn(multiples, (match?.[2] ?? "?").toLowerCase())
    ? multiples[match![2]!.toLowerCase()]
    : undefined;
  const bytes = multiple === undefined ? 0 : Math.round(Number(match![1]) * multiple);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

const spans: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds from text: `30s`, `15m`, `1h`, `1d`; undefined for anything else. */
export function millisecondsFrom(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([smhd])\s*$/.exec(text);
  const ms = match === null ? 0 : Math.round(Number(match[1]) * spans[match[2]!]!);
  return ms > 0 && ms <= 400 * spans["d"]! ? ms : undefined;
}

/** What an amount of bytes per second has to look like. */
export const bytesForm = "bytes per second, such as 1048576 or 50MiB";
/** What a time span has to look like. */
export const spanForm = "a time span, such as 30s, 15m, 1h or 1d";

/** A whole number of at least `least`. @throws ProviderError CONFIG_INVALID */
export function wholeNumber(option: string, text: string, least: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
  throw usageError(`--${option} is ${JSON.stringify(text)}; it has to be a whole number of at least ${least}`);
}
