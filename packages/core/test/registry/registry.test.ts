import { describe, expect, test } from "vitest";
import { validateConfig } from "../../src/registry/config.ts";
import { checkDefinition } from "../../src/registry/definition.ts";
import { Registry, openSource, openTarget } from "../../src/registry/registry.ts";
import { specMismatch, specsInWords, supportedSpecs } from "../../src/registry/specs.ts";
import { makeDefinition, schemaOf } from "./definitions.ts";

describe("Registry", () => {
  test("knows providers by name, by scheme and in order", () => {
    const tape = makeDefinition();
    const card = makeDefinition({ name: "punch-card", schemes: ["card", "card+v2"] });
    const registry = new Registry([tape]).register(card).register(tape);
    expect(registry.list()).toEqual([tape, card]);
    expect(registry.get("punch-card")).toBe(card);
    expect([registry.has("tape"), registry.has("drum")]).toEqual([true, false]);
    expect(registry.schemes()).toEqual(["tape", "card", "card+v2"]);
    expect(registry.resolve("CARD+V2:deck 7")).toEqual({
      uri: { scheme: "card+v2", text: "CARD+V2:deck 7" },
      definition: card,
      options: { uri: "CARD+V2:deck 7" },
    });
  });

  test("gives plain paths to the provider of the scheme local", () => {
    const local = makeDefinition({ name: "local", schemes: ["local"] });
    const registry = new Registry([local]);
    for (const text of ["disk.raw", "./disk.raw", "../a:b", "/dev/vdb", "C:\\disk.raw", "./nbd:x"]) {
      expect(registry.resolve(text)).toMatchObject({ definition: local, options: { uri: text } });
    }
  });

  test("refuses a second provider of the same name, and of the same scheme, and stays as it was", () => {
    const registry = new Registry([makeDefinition()]);
    expect(() => registry.register(makeDefinition())).toThrow(expect.objectContaining({ code: "EXISTS" }) as Error);
    expect(() => registry.register(makeDefinition({ name: "other" }))).toThrow(
      /provider "other" claims the scheme "tape:", which belongs to "tape"/,
    );
    expect(registry.has("other")).toBe(false);
  });

  test("names what is there and what to install when a provider is missing", () => {
    const registry = new Registry([makeDefinition()]);
    expect(() => registry.get("vsphere")).toThrow(
      expect.objectContaining({
        code: "NOT_FOUND",
        message:
          'no provider "vsphere" is registered (there: tape); run: npm install @diskferry/provider-vmware, and register it',
      }) as Error,
    );
    expect(() => new Registry().get("drum")).toThrow(/\(there: none\); check the name/);
  });

  test("names the package of a known scheme, and all known schemes for an unknown one", () => {
    const registry = new Registry([makeDefinition()]);
    expect(() => registry.resolve("vsphere:vm-12")).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        message:
          'no provider for "vsphere:" in vsphere:vm-12; it comes with the provider "vsphere"; run: npm install @diskferry/provider-vmware',
      }) as Error,
    );
    expect(() => registry.resolve("./disk.raw")).toThrow(/npm install @diskferry\/provider-local/);
    expect(() => registry.resolve("drum:7")).toThrow(/aws-ebs \(npm install @diskferry\/provider-aws\).* tape,/);
    expect(() => registry.resolve("drum:7")).toThrow(/for a file of that name write \.\/drum:7/);
  });
});

describe("checkDefinition", () => {
  test("takes a definition made with another copy of core: it goes by members, not by classes", () => {
    class Foreign {
      readonly spec = "v1";
      readonly name = "foreign";
      readonly config = Object.assign(
        () => undefined,
        schemaOf((value) => ({ value })),
      );
      target(): Promise<never> {
        return Promise.reject(new Error("not needed"));
      }
    }
    const foreign = new Foreign();
    expect(checkDefinition(foreign)).toBe(foreign);
  });

  test.each<[string, unknown, RegExp]>([
    ["nothing", undefined, /it is no object/],
    ["text", "tape", /it is no object/],
    ["no spec", { name: "tape" }, /member spec is missing/],
    ["a bad name", makeDefinition({ name: "Tape Drive" }), /name must be like aws-ebs/],
    ["no schema", { ...makeDefinition(), config: {} }, /must be a Standard Schema/],
    ["no side", { ...makeDefinition(), source: undefined }, /neither source nor target/],
    ["a side that is no function", { ...makeDefinition(), target: {} }, /its target is no function/],
    ["a scheme with a colon", makeDefinition({ schemes: ["tape:"] }), /schemes must be/],
    ["a scheme of one letter", makeDefinition({ schemes: ["t"] }), /schemes must be/],
    ["schemes without fromUri", { ...makeDefinition(), fromUri: undefined }, /schemes but no fromUri/],
  ])("refuses %s", (_, value, message) => {
    expect(() => checkDefinition(value)).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringMatching(message) }) as Error,
    );
  });

  test("lists everything that is wrong at once", () => {
    expect(() => checkDefinition({ spec: "v1", name: "X", config: 1, source: 2 })).toThrow(
      /provider "X" is no valid provider: its name .*; its config .*; its source is no function/,
    );
  });

  test("tells a provider of a later spec from one of an earlier, and names what to update", () => {
    expect(() => checkDefinition({ ...makeDefinition(), spec: "v2" })).toThrow(
      expect.objectContaining({
        code: "UNSUPPORTED",
        message:
          'provider "tape" was written for spec v2, and this @diskferry/core supports v1; run: npm install @diskferry/core@latest',
      }) as Error,
    );
    expect(specMismatch({ package: "tape-provider" }, "v1", ["v2", "v3"]).message).toBe(
      "tape-provider was written for spec v1, and this @diskferry/core supports v2 and v3; run: npm install tape-provider@latest",
    );
    expect(specMismatch({ package: "tape-provider" }, "v4", ["v1", "v2", "v3"]).message).toBe(
      "tape-provider was written for spec v4, and this @diskferry/core supports v1, v2 and v3; run: npm install @diskferry/core@latest",
    );
    expect(specMismatch({ name: "tape" }, 7).message).toMatch(/written for spec none, .* supports v1; update it$/);
    expect(specsInWords()).toBe(supportedSpecs.join(" and "));
  });
});

describe("validateConfig", () => {
  test("gives back what the schema made of the options, at once or later", async () => {
    const sync = makeDefinition({ config: schemaOf((value) => ({ value: { ...(value as object), port: 1 } })) });
    const later = makeDefinition({ config: schemaOf((value) => Promise.resolve({ value: [value] })) });
    expect(await validateConfig(sync, { host: "a" })).toEqual({ host: "a", port: 1 });
    expect(await validateConfig(later, 7)).toEqual([7]);
  });

  test("lists all issues with their paths in one error, whatever form the paths have", async () => {
    const issues = [
      { message: "is missing", path: ["disks", 0, "size"] },
      { message: "is too short", path: [{ key: "hosts" }, { key: "my host" }] },
      { message: "is not an object" },
    ];
    await expect(validateConfig(makeDefinition({ config: schemaOf(() => ({ issues })) }), {})).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      provider: "tape",
      message:
        'options of provider "tape" are not valid:\n  disks[0].size: is missing\n  hosts["my host"]: is too short\n  (options): is not an object',
    });
  });

  test("shows no secret, even where the schema's message does", async () => {
    const config = schemaOf(() => ({
      issues: [{ message: 'must be 20 long (was "hunter2hunter2")', path: ["auth", "password"] }],
    }));
    const options = { auth: { password: "hunter2hunter2" }, host: "must" };
    await expect(validateConfig(makeDefinition({ config }), options)).rejects.toMatchObject({
      message: expect.stringMatching(/auth\.password: must be 20 long \(was "\*\*\*"\)/),
    });
  });

  test("counts what is too much to list", async () => {
    const issues = Array.from({ length: 1000 }, (_, index) => ({ message: "no", path: [index] }));
    const error = await validateConfig(makeDefinition({ config: schemaOf(() => ({ issues })) }), []).catch(
      (each: Error) => each,
    );
    expect((error as Error).message.split("\n")).toHaveLength(52);
    expect((error as Error).message).toMatch(/and 950 more$/);
  });
});

describe("opening", () => {
  test("checks the options first, and refuses a side that the provider does not have", async () => {
    const opened: unknown[] = [];
    const definition = makeDefinition({
      config: schemaOf((value) => (value === 1 ? { value: "one" } : { issues: [{ message: "must be 1" }] })),
      source: (config, context) => {
        opened.push([config, context]);
        return Promise.reject(new Error("opened"));
      },
    });
    const context = { notice: () => undefined };
    await expect(openSource(definition, 2, context)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    expect(opened).toEqual([]);
    await expect(openSource(definition, 1, context)).rejects.toThrow("opened");
    expect(opened).toEqual([["one", context]]);
    await expect(openTarget(definition, 1)).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: 'provider "tape" cannot be written to, only read from; choose another one for this end',
    });
  });
});
