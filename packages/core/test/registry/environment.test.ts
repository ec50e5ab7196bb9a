import { describe, expect, test } from "vitest";
import { expandEnvironment } from "../../src/registry/environment.ts";

const env = { HOST: "vcenter", PASSWORD: "a${HOST}b", EMPTY: "" };

describe("expandEnvironment", () => {
  test("replaces references at any depth, and changes neither the input nor anything else", () => {
    const date = new Date(0);
    const input = {
      url: "https://${HOST}:${HOST}/",
      list: ["${PASSWORD}", 7, null, true, { deep: "${EMPTY}" }],
      "${HOST}": "$HOST $",
      date,
      none: undefined,
    };
    const kept = structuredClone(input);
    expect(expandEnvironment(input, env)).toEqual({
      url: "https://vcenter:vcenter/",
      list: ["a${HOST}b", 7, null, true, { deep: "" }],
      "${HOST}": "$HOST $",
      date,
      none: undefined,
    });
    expect(input).toEqual(kept);
  });

  test("takes $${ for the text itself", () => {
    expect(expandEnvironment("$${HOST} is ${HOST}", env)).toBe("${HOST} is vcenter");
  });

  test("names everything that is missing or wrong at once, with its path, and no value", () => {
    const input = { source: { password: "x${NO_SUCH}y${NOR_THIS}" }, targets: [{ key: "${HOST" }, { key: "${a b}" }] };
    expect(() => expandEnvironment(input, env)).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        message: [
          "the configuration needs environment variables that it cannot have; set them and run again:",
          "  source.password: NO_SUCH is not set",
          "  source.password: NOR_THIS is not set",
          '  targets[0].key: a "${" that names no variable; write ${NAME}, or $${ for the text itself',
          '  targets[1].key: a "${" that names no variable; write ${NAME}, or $${ for the text itself',
        ].join("\n"),
      }) as Error,
    );
  });

  test("takes nothing from the environment's prototype, and writes nothing to the result's", () => {
    expect(() => expandEnvironment("${toString}", env)).toThrow("toString is not set");
    const expanded = expandEnvironment(JSON.parse('{"__proto__": {"polluted": "${HOST}"}}'), env) as object;
    expect(Object.keys(expanded)).toEqual(["__proto__"]);
    expect((expanded as { polluted?: unknown }).polluted).toBeUndefined();
  });

  test("refuses what is nested without end", () => {
    const loop: { next?: unknown } = {};
    loop.next = loop;
    expect(() => expandEnvironment(loop, env)).toThrow(/next\.next\.next\.next…: nested deeper than 64 levels/);
  });
});
