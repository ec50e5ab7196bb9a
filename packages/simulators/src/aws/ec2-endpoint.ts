import { AwsError } from "./aws-error.ts";
import type { Answer } from "./answer.ts";
import { imageActions } from "./ec2-images.ts";
import { importActions } from "./ec2-imports.ts";
import { instanceViews } from "./ec2-instances.ts";
import { launchActions } from "./ec2-launch.ts";
import { networkActions } from "./ec2-network.ts";
import { placeActions } from "./ec2-places.ts";
import { powerActions } from "./ec2-power.ts";
import { wrong, type Ec2Actions, type Ec2Scope } from "./ec2-scope.ts";
import { snapshotActions } from "./ec2-snapshots.ts";
import { tagActions } from "./ec2-tags.ts";
import { tierActions } from "./ec2-tiers.ts";
import { volumeActions } from "./ec2-volumes.ts";
import { Ec2Form, xml } from "./ec2-wire.ts";
import type { Caller } from "./signature.ts";

const namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";

/** Reads the body of a query request. */
export function ec2Form(body: string): Ec2Form {
  return new Ec2Form(new Map(new URLSearchParams(body)));
}

/** An error as the EC2 query protocol writes it. */
export function ec2ErrorAnswer(error: AwsError): Answer {
  const Error = { Code: error.code, Message: error.message };
  return xmlAnswer(error.status, xml("Response", { Errors: { Error }, RequestID: "simulated" }));
}

/** An answer of a query protocol. */
export function xmlAnswer(status: number, body: string): Answer {
  const head = '<?xml version="1.0" encoding="UTF-8"?>\n';
  return { status, headers: { "content-type": "text/xml;charset=UTF-8" }, body: head + body };
}

/** The EC2 actions over the resources of a world. */
export class Ec2Endpoint {
  readonly #scope: Ec2Scope;
  readonly #actions: Ec2Actions;

  /** `importFailures` are the status messages with which the next tasks of ImportImage end. */
  constructor(scope: Ec2Scope, importFailures: string[]) {
    this.#scope = scope;
    this.#actions = {
      ...volumeActions(scope),
      ...snapshotActions(scope),
      ...tierActions(scope),
      ...imageActions(scope),
      ...importActions(scope, importFailures),
      ...launchActions(scope),
      ...instanceViews(scope),
      ...powerActions(scope),
      ...networkActions(scope),
      ...placeActions(scope),
      ...tagActions(scope),
    };
  }

  /** Answers one action. @throws AwsError */
  async answer(form: Ec2Form, caller: Caller): Promise<Answer> {
    const { world } = this.#scope;
    const name = form.need("Action");
    const action = Object.hasOwn(this.#actions, name) ? this.#actions[name] : undefined;
    if (action === undefined) throw wrong("InvalidAction", `The action ${name} is not valid for this web service.`);
    world.authorize(caller.accountId, `ec2:${name}`, `arn:aws:ec2:${caller.region}:${caller.accountId}:*`);
    form.only(`Action Version DryRun ${action.takes}`);
    if (form.flag("DryRun"))
      throw new AwsError(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.");
    world.settle();
    const body = xml(`${name}Response`, { requestId: "simulated", ...(await action.act(form, caller)) });
    return xmlAnswer(200, body.replace(">", ` xmlns="${namespace}">`));
  }
}
