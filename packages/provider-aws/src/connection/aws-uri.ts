import { awsError } from "../errors.ts";
import type { AwsOptions } from "../options.ts";

/** The scheme of `aws-ebs://<region>/<id of an instance, volume or snapshot>`. */
export const awsScheme = "aws-ebs";

const parameters = ["profile", "endpoint", "product"];

/**
 * The options that a URI stands for: the Region as host, what it is about as path, and the parameters profile, endpoint
 * and product. Keys are never part of a URI.
 * @throws ProviderError CONFIG_INVALID
 */
export function optionsFromUri(uri: string): AwsOptions {
  const invalid = (why: string): Error =>
    awsError("CONFIG_INVALID", `${why}; write aws-ebs://eu-central-1/i-0123456789abcdef0`, { operation: "parse URI" });
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    throw invalid("This is no URI of aws-ebs");
  }
  if (url.protocol !== `${awsScheme}:`) throw invalid(`${url.protocol} is not a scheme of aws-ebs`);
  if (url.username !== "" || url.password !== "" || url.port !== "" || url.hash !== "")
    throw invalid("A URI of aws-ebs has a Region and a path, and neither user, port nor fragment");
  const resource = decodeURIComponent(url.pathname.replace(/^\//, ""));
  if (resource.includes("/")) throw invalid(`${resource} is no id of an instance, volume or snapshot`);
  const options: AwsOptions = {};
  if (url.hostname !== "") options.region = url.hostname;
  if (resource !== "") options.resource = resource;
  for (const [name, value] of url.searchParams) {
    if (!parameters.includes(name) || value === "")
      throw invalid(`The parameter ${name} is not one of ${parameters.join(", ")}, or empty`);
    if (name === "profile") options.credentials = { profile: value };
    else if (name === "endpoint") options.endpoint = value;
    else options.product = value;
  }
  return options;
}
