import { ApiError, errorCodes } from "../api-error.ts";
import { listed, type Call, type CommandDefinition } from "../command.ts";
import { writeJob } from "../responses.ts";

function queryAsyncJobResult({ jobs, parameters, caller, world }: Call): object {
  const id = parameters.required("jobid");
  const job = jobs.get(id);
  if (job === undefined) throw parameters.badValue("jobid", id);
  const owner = world.accounts.get(job.ownerId);
  if (owner !== undefined && !world.mayUse(caller, owner))
    throw new ApiError(errorCodes.account, `Account ${caller.name} is not authorized to see job id=${id}`);
  return writeJob(job);
}

function listAsyncJobs(call: Call): object {
  const { jobs, parameters, caller } = call;
  const all = caller.rootAdmin && parameters.flag("listall") === true;
  const since = Date.parse((parameters.text("startdate") ?? "1970-01-01").replace(/([+-]\d\d)(\d\d)$/, "$1:$2"));
  if (Number.isNaN(since)) throw parameters.badValue("startdate", parameters.text("startdate") ?? "");
  const found = jobs.all().filter((job) => (all || job.ownerId === caller.id) && job.created >= since);
  return listed(call, "asyncjobs", found, writeJob);
}

/** Asking for jobs. */
export const jobCommands: readonly CommandDefinition[] = [
  {
    name: "queryAsyncJobResult",
    group: "user.job",
    description: "Retrieves the current status of asynchronous job.",
    parameters: ["jobid"],
    answer: queryAsyncJobResult,
  },
  {
    name: "listAsyncJobs",
    group: "user.job",
    description: "Lists all pending asynchronous jobs for the account.",
    parameters: ["startdate"],
    answer: listAsyncJobs,
  },
];
