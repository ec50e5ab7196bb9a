/** Names of CloudStack's error codes that commands use (`ApiErrorCode`). */
export const errorCodes = {
  unauthorized: 401,
  apiLimit: 429,
  malformedParameter: 430,
  parameter: 431,
  unsupportedAction: 432,
  unavailable: 503,
  internal: 530,
  account: 531,
  accountLimit: 532,
  insufficientCapacity: 533,
  resourceUnavailable: 534,
  resourceAllocation: 535,
  resourceInUse: 536,
  networkRuleConflict: 537,
} as const;

/** What everybody but a root administrator reads instead of the text of 530, 533 and 534. */
const maskedText = "Internal error executing command, please contact your system administrator";

const exceptions: Readonly<Record<number, number>> = {
  431: 4350,
  530: 4250,
  531: 4365,
  532: 4280,
  533: 4310,
  534: 4385,
  535: 4370,
  536: 4380,
};

/** An error answer of CloudStack: the code is the HTTP status as well. */
export class ApiError extends Error {
  readonly code: number;
  /** `cserrorcode`, the number of the server's exception. */
  readonly exception: number;

  constructor(code: number, message: string, exception?: number) {
    super(message);
    this.code = code;
    this.exception = exception ?? exceptions[code] ?? 9999;
  }

  /** The text that a caller gets to read. */
  textFor(caller: { rootAdmin: boolean }): string {
    const masked = this.code === 530 || this.code === 533 || this.code === 534;
    return masked && !caller.rootAdmin ? maskedText : this.message;
  }
}

/** 431 with the server's InvalidParameterValueException. */
export function invalid(message: string): ApiError {
  return new ApiError(errorCodes.parameter, message);
}
