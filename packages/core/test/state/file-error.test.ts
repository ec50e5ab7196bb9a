import { describe, expect, it } from "vitest";
import { fileError } from "../../src/state/file-error.ts";

describe("a failure of the file system", () => {
  const told: [string, string, RegExp][] = [
    ["EACCES", "DENIED", /rights/],
    ["EROFS", "DENIED", /read-only/],
    ["ENOSPC", "UNAVAILABLE", /free some space/],
    ["EDQUOT", "UNAVAILABLE", /quota/],
    ["EIO", "UNAVAILABLE", /medium/],
    ["ENOTDIR", "CONFIG_INVALID", /no directory/],
    ["ENAMETOOLONG", "CONFIG_INVALID", /too long/],
    ["EUNHEARDOF", "UNEXPECTED", /EUNHEARDOF/],
  ];
  it.each(told)("%s becomes %s, names the path and says what to do", (code, kind, remedy) => {
    const error = fileError(Object.assign(new Error("x"), { code }), "write", "/srv/state/keys/a.json");
    expect(error).toMatchObject({ code: kind, retryable: false, operation: "state write" });
    expect(String(error)).toMatch(/cannot write \/srv\/state\/keys\/a\.json/);
    expect(String(error)).toMatch(remedy);
  });

  it("leaves alone what is none", () => {
    const error = new TypeError("a bug");
    expect(fileError(error, "write", "/x")).toBe(error);
  });
});
