import { setTimeout as sleep } from "node:timers/promises";
import type { CloudstackSimulator } from "@diskferry/simulators";

/** A tenant in front of the web page: logged in, and patient with jobs. */
export async function logIn(
  simulator: CloudstackSimulator,
): Promise<(command: string, parameters: Record<string, string>) => Promise<Record<string, unknown>>> {
  const { userName, password, domain } = simulator.tenant;
  const entered = await post(simulator.url, { command: "login", username: userName, password, domain });
  const cookie = entered.headers
    .getSetCookie()
    .map((each) => each.split(";")[0])
    .join("; ");
  const { sessionkey } = await contentOf(entered);
  const call = async (command: string, parameters: Record<string, string>): Promise<Record<string, unknown>> =>
    contentOf(await post(simulator.url, { command, sessionkey: String(sessionkey), ...parameters }, cookie));
  return async (command, parameters) => {
    const answer = await call(command, parameters);
    const { jobid } = answer as { jobid?: string };
    if (jobid === undefined) return answer;
    for (let tries = 0; tries < 1000; tries++) {
      const job = await call("queryAsyncJobResult", { jobid });
      if (job["jobstatus"] === 1) return { ...(job["jobresult"] as object), ...answer };
      if (job["jobstatus"] === 2) throw new Error(`${command}: ${JSON.stringify(job["jobresult"])}`);
      await sleep(3);
    }
    throw new Error(`${command} does not end`);
  };
}

/** A new volume of 1 GiB, attached to the simulator's appliance. */
export async function attachedVolume(
  simulator: CloudstackSimulator,
  call: Awaited<ReturnType<typeof logIn>>,
  before?: (volumeId: string) => void,
): Promise<string> {
  const offering = simulator.diskOfferings["Custom"] ?? "";
  const given = { name: "replica", zoneid: simulator.zoneId, size: "1", diskofferingid: offering };
  const id = String((await call("createVolume", given))["id"]);
  before?.(id);
  await call("attachVolume", { id, virtualmachineid: simulator.appliance.id });
  return id;
}

async function post(url: string, form: Record<string, string>, cookie = ""): Promise<Response> {
  return fetch(url, { method: "POST", headers: { cookie }, body: new URLSearchParams({ response: "json", ...form }) });
}

async function contentOf(answer: Response): Promise<Record<string, unknown>> {
  const [content] = Object.values((await answer.json()) as Record<string, Record<string, unknown>>);
  if (answer.status !== 200 || content === undefined) throw new Error(`${answer.status}: ${JSON.stringify(content)}`);
  return content;
}
