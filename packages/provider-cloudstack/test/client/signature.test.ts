import { describe, expect, it } from "vitest";
import { expiresText, signatureOf, textToSign } from "../../src/index.ts";

// Keys and the first vector are those of CloudStack's developer guide (dev.rst); a Java copy of the server's algorithm
// agrees on all of them.
const apikey = "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg";
const secret = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ";

const vectors: [string, Record<string, string>, string, string][] = [
  [
    "the developer guide's",
    { command: "listUsers", response: "json", apikey },
    "command=listusers&response=json",
    "TTpdDq/7j/J58XCRHomKoQXEQds=",
  ],
  [
    "a space and signs that URLEncoder writes otherwise",
    { command: "createVolume", name: "a b+c~d*e!f'g(h)i/j=k&l%m", response: "json", apikey },
    "command=createvolume&name=a%20b%2bc%7ed*e%21f%27g%28h%29i%2fj%3dk%26l%25m&response=json",
    "7tWNDbIQzslnlm55CVAUopSw2UU=",
  ],
  [
    "letters beyond ASCII",
    { command: "createVolume", name: "disk-Ünï-日本", response: "json", apikey },
    "command=createvolume&name=disk-%c3%9cn%c3%af-%e6%97%a5%e6%9c%ac&response=json",
    "0oFV20tQIkD+Bisrdt6En6DqgUE=",
  ],
  [
    "signature version 3",
    { command: "listZones", expires: "2030-01-01T00:00:00+0000", response: "json", signatureversion: "3", apikey },
    "command=listzones&expires=2030-01-01t00%3a00%3a00%2b0000&response=json&signatureversion=3",
    "cMjn+Vftjse8M0KXuO0TiDk0Nv8=",
  ],
  [
    "a map, whose brackets stay",
    {
      command: "deployVirtualMachine",
      "details[0].cpuNumber": "4",
      "details[0].memory": "8192",
      response: "json",
      apikey,
    },
    "command=deployvirtualmachine&details[0].cpunumber=4&details[0].memory=8192&response=json",
    "kWIPYdNKsuUAfVdDM038g5OoCNI=",
  ],
  [
    "names in mixed case",
    {
      apiKey: apikey,
      command: "listZones",
      expires: "2030-01-01T00:00:00+0000",
      response: "json",
      signatureVersion: "3",
    },
    "command=listzones&expires=2030-01-01t00%3a00%3a00%2b0000&response=json&signatureversion=3",
    "cMjn+Vftjse8M0KXuO0TiDk0Nv8=",
  ],
];

describe("signatures", () => {
  for (const [what, parameters, rest, signature] of vectors) {
    it(`are the server's own: ${what}`, () => {
      expect(textToSign(parameters)).toBe(`apikey=${apikey.toLowerCase()}&${rest}`);
      expect(signatureOf(parameters, secret)).toBe(signature);
    });
  }

  it("are the server's own: a capital in a name sorts before every small letter", () => {
    const parameters = new Map([
      ["apikey", apikey],
      ["command", "listVolumes"],
      ["response", "json"],
      ["Zoneid", "abc"],
    ]);
    expect(textToSign(parameters).startsWith("zoneid=abc&apikey=")).toBe(true);
    expect(signatureOf(parameters, secret)).toBe("PUxQpXklA3PytLUtfv9USgINm7g=");
  });

  it("leave the signature itself out, whatever its case", () => {
    const parameters = { command: "listUsers", response: "json", apikey };
    expect(signatureOf({ ...parameters, Signature: "x" }, secret)).toBe(signatureOf(parameters, secret));
  });

  it("expire at a time that the server can read", () => {
    expect(expiresText(Date.UTC(2030, 0, 1))).toBe("2030-01-01T00:00:00+0000");
  });
});
