import { defineProvider, type ProviderDefinition } from "@diskferry/core/provider";
import { z } from "zod";
import { call } from "./call.ts";
import { Platform } from "./platform.ts";
import { openSource } from "./source.ts";
import { openTarget } from "./target.ts";

/** What a user writes: `{ folder: "/srv/disks" }`, or `template:/srv/disks` on the command line. */
export interface Options {
  folder: string;
}

export const provider: ProviderDefinition<Options, Options> = defineProvider({
  spec: "v1",
  name: "template",
  schemes: ["template"],
  config: z.strictObject({ folder: z.string().min(1) }),
  fromUri: (uri) => ({ folder: uri.slice("template:".length) }),
  source: ({ folder }, context) => call("open", context, async () => openSource(new Platform(folder))),
  target: ({ folder }, context) => call("open", context, async () => openTarget(new Platform(folder))),
});
