import { expect, test } from "vitest";
import { Signer, amzDate, canonicalQuery, signingKey } from "../../src/connection/sigv4.ts";

// AWS General Reference, Signature Version 4: "Examples of how to derive a signing key", the example request of IAM and
// get-vanilla of the published test suite.
const secretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const at = Date.UTC(2015, 7, 30, 12, 36, 0);
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

test("the signing key of AWS's example", () => {
  expect(signingKey(secretAccessKey, "20150830", "us-east-1", "iam").toString("hex")).toBe(
    "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9",
  );
});

test("the signature of AWS's example of a request with a query", () => {
  const authorization = new Signer({ region: "us-east-1", service: "iam" }).authorization(
    {
      method: "GET",
      path: "/",
      query: canonicalQuery({ Version: "2010-05-08", Action: "ListUsers", Absent: undefined }),
      headers: {
        host: "iam.amazonaws.com",
        "x-amz-date": amzDate(at),
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
      },
      payloadHash: emptyHash,
    },
    { accessKeyId: "AKIDEXAMPLE", secretAccessKey },
  );
  expect(authorization).toBe(
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, " +
      "SignedHeaders=content-type;host;x-amz-date, " +
      "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
  );
});

test("the signature of get-vanilla, also after other keys and days were used", () => {
  const signer = new Signer({ region: "us-east-1", service: "service" });
  const sign = (moment: number, secret: string): string =>
    signer.authorization(
      {
        method: "GET",
        path: "/",
        query: "",
        headers: { host: "example.amazonaws.com", "x-amz-date": amzDate(moment) },
        payloadHash: emptyHash,
      },
      { accessKeyId: "AKIDEXAMPLE", secretAccessKey: secret },
    );
  const expected = /Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31$/;
  expect(sign(at, secretAccessKey)).toMatch(expected);
  expect(sign(at + 86_400_000, secretAccessKey)).not.toMatch(expected);
  expect(sign(at, "another")).not.toMatch(expected);
  expect(sign(at, secretAccessKey)).toMatch(expected);
});

test("what is not unreserved is encoded, and parameters are sorted", () => {
  expect(canonicalQuery({ blockToken: "AAA+/b==", a: "!'()* ~" })).toBe(
    "a=%21%27%28%29%2A%20~&blockToken=AAA%2B%2Fb%3D%3D",
  );
});
