import type { Command } from "./command.ts";
import { appliance } from "./commands/appliance.ts";
import { audit } from "./commands/audit.ts";
import { cleanup } from "./commands/cleanup.ts";
import { conformance } from "./commands/conformance.ts";
import { copy } from "./commands/copy.ts";
import { cutover } from "./commands/cutover.ts";
import { doctor } from "./commands/doctor.ts";
import { launch } from "./commands/launch.ts";
import { plan } from "./commands/plan.ts";
import { providers, providersAdd } from "./commands/providers.ts";
import { receiptVerify } from "./commands/receipt-verify.ts";
import { status } from "./commands/status.ts";
import { sync } from "./commands/sync.ts";
import { test } from "./commands/test.ts";
import { verify } from "./commands/verify.ts";

/** Everything that `diskferry` does, in the order of its help. */
export const commands: readonly Command[] = [
  copy,
  sync,
  plan,
  status,
  verify,
  audit,
  launch,
  test,
  cutover,
  cleanup,
  receiptVerify,
  providers,
  providersAdd,
  conformance,
  appliance,
  doctor,
];
