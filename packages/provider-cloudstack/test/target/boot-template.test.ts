import { expect, it } from "vitest";
import type { Cloud } from "../../src/cloud.ts";
import { launchTemplate } from "../../src/launch/boot-template.ts";
import { templateName } from "../../src/names.ts";

it("a template whose job ends between two questions is ready, not what a dead job left", async () => {
  const scope = { job: "move", key: "k" };
  let lists = 0;
  const cloud = {
    async *templates() {
      yield { id: "t", name: templateName(scope.job, scope.key), isReady: lists++ > 0 };
    },
    client: { pendingJobOf: () => Promise.resolve(undefined) },
  } as unknown as Cloud;
  expect(await launchTemplate(cloud, scope, {})).toMatchObject({ id: "t", isReady: true });
});
