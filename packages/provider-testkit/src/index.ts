export {
  conformance,
  type ConformanceCase,
  type ConformanceContext,
  type ConformanceReport,
  formatConformance,
  runConformance,
} from "./conformance.ts";
export {
  type ConformanceHarness,
  type DefinitionHarness,
  NotJudged,
  type SecondDisk,
  type SourceHarness,
  type TargetHarness,
} from "./harness.ts";
export { ConformanceError } from "./judge.ts";
