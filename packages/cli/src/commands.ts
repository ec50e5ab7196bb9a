import type { Command } from "./command.ts";
import { copy } from "./commands/copy.ts";
import { status } from "./commands/status.ts";
import { sync } from "./commands/sync.ts";
import { verify } from "./commands/verify.ts";

/** Everything that `diskferry` does, in the order of its help. */
export const commands: readonly Command[] = [copy, sync, verify, status];
