import { describe, expect, test } from "vitest";
import { nearNames, shownName, storedName } from "../../src/inventory/entity-names.ts";

describe("names", () => {
  test("are shown as people wrote them, and stored as vSphere does", () => {
    expect(shownName("db%2f1")).toBe("db/1");
    expect(shownName("a%2Fb%5Cc%25d")).toBe("a/b\\c%d");
    expect(shownName("100%2525")).toBe("100%25");
    expect(shownName("50% off")).toBe("50% off");
    for (const name of ["db/1", "a\\b", "100%", "%2f", "plain", "ü ö"]) expect(shownName(storedName(name))).toBe(name);
  });

  test("that are near are offered, the nearest first, and at most five", () => {
    const known = ["web-1", "web-2", "WEB-01", "db", "web-1-clone", "mail", "webserver", "web-3", "web-4", "web-5"];
    expect(nearNames("web1", known)[0]).toBe("web-1");
    expect(nearNames("web-1", known)).toHaveLength(5);
    expect(nearNames("wbe-2", known)).toContain("web-2");
    expect(nearNames("something-else-entirely", known)).toEqual([]);
    expect(nearNames("x", ["a".repeat(10_000)])).toEqual([]);
  });
});
