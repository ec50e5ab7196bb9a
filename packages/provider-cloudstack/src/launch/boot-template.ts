import type { OwnedResource, Wait } from "@diskferry/core/provider";
import type { CloudTemplate } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { jobOfTemplate, templateName } from "../names.ts";
import type { LaunchScope } from "./launch-scope.ts";

/** What a template is made of. */
export type TemplateOrigin = { volumeid: string } | { snapshotid: string };

/** The template of a launch; undefined: there is none. */
export async function launchTemplate(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<CloudTemplate | undefined> {
  const name = templateName(scope.job, scope.key);
  const found = await listed(cloud, name, wait);
  if (found === undefined || found.isReady) return found;
  const jobId = found.jobId ?? (await cloud.client.pendingJobOf(found.id, wait));
  // A job that ended since the list was made is pending no more: the next list tells what it left.
  return jobId === undefined ? listed(cloud, name, wait) : { ...found, jobId };
}

async function listed(cloud: Cloud, name: string, wait: Wait): Promise<CloudTemplate | undefined> {
  let found: CloudTemplate | undefined;
  for await (const template of cloud.templates({ keyword: name }, wait))
    if (template.name === name && (found === undefined || template.isReady)) found = template;
  return found;
}

/** Makes the template of a launch, once, and waits until machines can be made of it. One that a dead job left is made anew. */
export async function makeTemplate(
  cloud: Cloud,
  scope: LaunchScope,
  origin: TemplateOrigin,
  about: { osTypeId: string; displayText: string },
  wait: Wait,
): Promise<CloudTemplate> {
  const left = await launchTemplate(cloud, scope, wait);
  if (left !== undefined && !left.isReady && left.jobId === undefined) await deleteTemplate(cloud, left, wait);
  const name = templateName(scope.job, scope.key);
  const template = await ensure(
    cloud.client,
    {
      object: `template ${name}`,
      look: () => launchTemplate(cloud, scope, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.isReady === true,
      command: (state) => {
        if (state !== undefined) throw unfinished(state);
        const { osTypeId: ostypeid, displayText: displaytext } = about;
        return {
          command: "createTemplate",
          parameters: { ...origin, name, displaytext, ostypeid, ispublic: false, requireshvm: true },
        };
      },
      prepare: () => cloud.scope(wait),
      creates: true,
    },
    wait,
  );
  if (template === undefined) throw cloudstackError("UNEXPECTED", `Template ${name} was made and is not there.`);
  return template;
}

/** Deletes every template of a launch; the machine that was made of it keeps its disk (`deleteTemplate`). Idempotent. */
export async function removeTemplate(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<void> {
  const name = templateName(scope.job, scope.key);
  const found: CloudTemplate[] = [];
  for await (const template of cloud.templates({ keyword: name }, wait))
    if (template.name === name) found.push(template);
  for (const template of found) await deleteTemplate(cloud, template, wait);
}

/** The templates of a job, whichever of its launches made them: what was kept is listed like what was left. */
export async function* templatesOf(cloud: Cloud, job: string, wait: Wait): AsyncGenerator<OwnedResource> {
  if (!(await cloud.commands(wait)).has("listtemplates")) return;
  for await (const { id, name, isReady, size } of cloud.templates({ keyword: `df-${job}-` }, wait)) {
    if (jobOfTemplate(name) !== job) continue;
    yield { kind: "template", id, description: `${name}, ${size ?? 0} bytes, ${isReady ? "ready" : "not ready"}` };
  }
}

async function deleteTemplate(cloud: Cloud, { id, name }: CloudTemplate, wait: Wait): Promise<void> {
  const look = async (): Promise<CloudTemplate | undefined> => {
    for await (const template of cloud.templates({ keyword: name }, wait)) if (template.id === id) return template;
    return undefined;
  };
  await ensure(
    cloud.client,
    {
      object: `template ${name}`,
      look,
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined,
      // Without it CloudStack keeps a template as long as there are machines that were made of it.
      command: () => ({ command: "deleteTemplate", parameters: { id, forced: true } }),
    },
    wait,
  );
}

function unfinished({ id, name }: CloudTemplate): Error {
  return cloudstackError(
    "UNAVAILABLE",
    `Template ${id} (${name}) is not ready and no job works on it: its job failed or is still coming. Look at CloudStack's ` +
      `events, and launch again.`,
    { operation: "launch", retryable: false },
  );
}
