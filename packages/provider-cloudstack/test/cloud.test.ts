import { expect, it } from "vitest";
import { Cloud } from "../src/cloud.ts";
import { type Script, startScripted } from "./client/scripted-server.ts";

function openCloud(endpoint: string): Promise<Cloud> {
  const timeouts = { pollMs: 1, requestMs: 2_000 };
  return Cloud.open({ endpoint, apiKey: "key", secretKey: "secret", timeouts, retryBudgetMs: 500 });
}

it("a machine's name that is a number is no id: the server takes its own numbers for ids too", async () => {
  const machines = [
    { id: "11111111-1111-4111-8111-111111111111", name: "i-2-100-VM", displayname: "somebody's", state: "Running" },
    { id: "22222222-2222-4222-8222-222222222222", name: "web", displayname: "100", state: "Running" },
  ];
  const script: Script = ({ form }) => {
    // ParamProcessWorker.translateUuidToInternalId: the row of that number in the database.
    const id = form.get("id") === "100" ? machines[0]!.id : form.get("id");
    const found = machines.filter((each) => id === null || each.id === id);
    return { body: { listvirtualmachinesresponse: { count: found.length, virtualmachine: found } } };
  };
  await using server = await startScripted(script);
  await using cloud = await openCloud(server.url);
  expect((await cloud.machineNamed("100")).displayName).toBe("100");
  expect(await cloud.machine("100")).toBeUndefined();
  expect((await cloud.machineNamed(machines[0]!.id)).displayName).toBe("somebody's");
});

it("what is asked once for several is not lost to all when one of them gives up, and ends with the connection", async () => {
  await using server = await startScripted(({ form }) =>
    form.get("command") === "listProjects"
      ? "hang"
      : { body: { listzonesresponse: { count: 1, zone: [{ id: "z", name: "zone" }] } } },
  );
  const cloud = await openCloud(server.url);
  const controller = new AbortController();
  const [given, other] = [cloud.zoneId({ signal: controller.signal }), cloud.zoneId()];
  controller.abort(new Error("enough"));
  await expect(given).rejects.toThrow("enough");
  expect(await other).toBe("z");
  expect(server.calls).toHaveLength(1);
  const hanging = cloud.once("it", {}, (wait) => cloud.client.call("listProjects", {}, wait));
  const ended = expect(hanging).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
  await cloud[Symbol.asyncDispose]();
  await ended;
});
