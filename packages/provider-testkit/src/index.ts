export {
  conformance,
  type ConformanceCase,
  type ConformanceContext,
  type ConformanceReport,
  formatConformance,
  runConformance,
} from "./conformance.ts";
export type { ConformanceHarness, DefinitionHarness, SecondDisk, SourceHarness, TargetHarness } from "./harness.ts";
export { ConformanceError } from "./judge.ts";
