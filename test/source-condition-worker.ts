import { parentPort } from "node:worker_threads";
import { isProviderError } from "@diskferry/core/provider";

parentPort?.postMessage({
  resolved: import.meta.resolve("@diskferry/core/provider"),
  loaded: typeof isProviderError,
});
