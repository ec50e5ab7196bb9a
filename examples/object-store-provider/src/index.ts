import { defineProvider, type ProviderDefinition } from "@diskferry/core/provider";
import { z } from "zod";
import { call } from "./call.ts";
import { openSource } from "./source.ts";
import { BlockStore } from "./store.ts";
import { openTarget } from "./target.ts";

/** What a user writes: `{ folder: "/srv/blocks" }`, or `block-store:/srv/blocks` on the command line. */
export interface Options {
  folder: string;
}

export const provider: ProviderDefinition<Options, Options> = defineProvider({
  spec: "v1",
  name: "block-store",
  schemes: ["block-store"],
  config: z.strictObject({ folder: z.string().min(1) }),
  fromUri: (uri) => ({ folder: uri.slice("block-store:".length) }),
  source: ({ folder }, context) => call("open", context, async () => openSource(new BlockStore(folder))),
  target: ({ folder }, context) => call("open", context, async () => openTarget(new BlockStore(folder))),
});
