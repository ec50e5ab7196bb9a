import { randomBytes } from "node:crypto";
import type { Answer } from "./answer.ts";
import { AwsError } from "./aws-error.ts";
import { xmlAnswer } from "./ec2-endpoint.ts";
import { xml, type Ec2Form, type XmlValue } from "./ec2-wire.ts";
import type { AwsCredentials, Caller } from "./signature.ts";
import type { World } from "./world.ts";

const namespace = "https://sts.amazonaws.com/doc/2011-06-15/";

/** An error as STS writes it. */
export function stsErrorAnswer(error: AwsError): Answer {
  const Error = { Type: "Sender", Code: error.code, Message: error.message };
  return xmlAnswer(error.status, xml("ErrorResponse", { Error, RequestId: "simulated" }));
}

/** GetCallerIdentity and AssumeRole; keys that AssumeRole gives are put into `keys`. @throws AwsError */
export function answerSts(world: World, keys: Map<string, AwsCredentials>, form: Ec2Form, caller: Caller): Answer {
  const action = form.need("Action");
  world.authorize(caller.accountId, `sts:${action}`, "*");
  if (action === "GetCallerIdentity") {
    form.only("Action Version");
    return answer(action, { Arn: caller.arn, UserId: caller.accessKeyId, Account: caller.accountId });
  }
  if (action !== "AssumeRole") throw new AwsError(400, "InvalidAction", `Could not find operation ${action}`);
  form.only("Action Version RoleArn RoleSessionName DurationSeconds ExternalId");
  const roleArn = form.need("RoleArn");
  const session = form.need("RoleSessionName");
  if (!/^[\w+=,.@-]{2,64}$/.test(session))
    throw new AwsError(400, "ValidationError", `Value '${session}' at 'roleSessionName' failed to satisfy constraint`);
  const seconds = form.number("DurationSeconds") ?? 3600;
  if (seconds < 900 || seconds > 43_200)
    throw new AwsError(400, "ValidationError", `Value '${seconds}' at 'durationSeconds' failed to satisfy constraint`);
  const role = world.roles.get(roleArn);
  const trusted = role?.trusts.includes(caller.accountId) === true;
  if (role === undefined || !trusted || role.externalId !== form.text("ExternalId"))
    throw new AwsError(
      403,
      "AccessDenied",
      `User: ${caller.arn} is not authorized to perform: sts:AssumeRole on resource: ${roleArn}`,
    );
  const [, , , , accountId = "", name = ""] = roleArn.split(":");
  const expiresAt = Math.floor((world.now() + seconds * 1000) / 1000) * 1000;
  const arn = `arn:aws:sts::${accountId}:assumed-role/${name.replace("role/", "")}/${session}`;
  const credentials: AwsCredentials = {
    accountId,
    accessKeyId: `ASIA${randomBytes(8).toString("hex").toUpperCase()}`,
    secretAccessKey: randomBytes(20).toString("base64"),
    sessionToken: randomBytes(48).toString("base64"),
    expiresAt,
    arn,
  };
  keys.set(credentials.accessKeyId, credentials);
  return answer(action, {
    Credentials: {
      AccessKeyId: credentials.accessKeyId,
      SecretAccessKey: credentials.secretAccessKey,
      SessionToken: credentials.sessionToken,
      Expiration: new Date(expiresAt).toISOString(),
    },
    AssumedRoleUser: { Arn: arn, AssumedRoleId: `AROASIMULATED:${session}` },
  });
}

function answer(action: string, result: { [name: string]: XmlValue }): Answer {
  const body = xml(`${action}Response`, { [`${action}Result`]: result, ResponseMetadata: { RequestId: "simulated" } });
  return xmlAnswer(200, body.replace(">", ` xmlns="${namespace}">`));
}
