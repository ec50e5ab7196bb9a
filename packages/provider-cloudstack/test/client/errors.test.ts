import { expect, test } from "vitest";
import { ApiFailure, translateFailure } from "../../src/errors.ts";

test("a command that the account may not call is denied, whatever number the server gives it; an object that is gone is not", () => {
  const text = "The API [createTags] does not exist or is not available for the account for user id [2]";
  for (const code of [432, 401, 531]) {
    const error = translateFailure(new ApiFailure("createTags", code, text));
    expect(error).toMatchObject({ code: "DENIED", retryable: false });
    expect(error.message).toContain("Allow createTags in the role");
  }
  const gone = new ApiFailure("deleteVolume", 431, "Unable to find volume with ID: 17");
  expect(translateFailure(gone).code).toBe("NOT_FOUND");
});

test("a volume that a schedule snapshots just now is in use, not asked for wrongly", () => {
  const text = "Volume: 17 is not in Ready state but Snapshotting. Cannot take snapshot.";
  expect(translateFailure(new ApiFailure("createSnapshot", 431, text, 4350))).toMatchObject({ code: "IN_USE" });
});
