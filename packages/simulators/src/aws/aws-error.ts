/** An error answer of AWS: its code, HTTP status, message and, for EBS, the reason. */
export class AwsError extends Error {
  readonly code: string;
  readonly status: number;
  readonly reason: string | undefined;

  constructor(status: number, code: string, message: string, reason?: string) {
    super(message);
    this.code = code;
    this.status = status;
    this.reason = reason;
  }
}

/** ValidationException of EBS direct APIs with one of the model's reasons. */
export function invalid(reason: string, message: string): AwsError {
  return new AwsError(400, "ValidationException", message, reason);
}
