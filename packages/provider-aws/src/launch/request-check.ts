import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { targetTagNames } from "../target/target-tags.ts";
import type { LaunchPlan } from "./launch-plan.ts";

/** @throws ProviderError EXISTS when the launch's key made something of other disks, or for another purpose */
export function checkRequest(
  { settings }: AwsConnection,
  { launch, request }: Pick<LaunchPlan, "launch" | "request">,
  id: string,
  tags: Parameters<typeof tagsOf>[0],
): void {
  if (tagsOf(tags)[targetTagNames(settings.product).request] === request) return;
  throw awsError(
    "EXISTS",
    `The key ${launch} launched ${id} from other disks or for another purpose: terminate that, or use another key.`,
    { operation: "launch" },
  );
}
