// The shim: one small process beside each service of the local supervisor. It starts the service, keeps its output,
// knows its end, and ends only when nothing of it is left. Whoever asked for the service may die at any moment: it does
// not.
//
// Its life, as the phases of local_state.h name it:
//
//   starting ──exec ok──> running ──SIGTERM, stop_argv given──> stop_command ──its end, or stop_timeout──┐
//      │                     │ │                                                                         v
//      │ exec failed         │ └──SIGTERM, or the main process ended and others survive──────────> stop_sigterm
//      │                     │                                                                           │ stop_timeout
//      │                     │ the main process ended, nobody else is left                               v
//      └────────────> ended <┴──────────────────── nobody is left ────────────────────────────── stop_sigkill
//
// SIGKILL for the shim itself takes the main process with it (PR_SET_PDEATHSIG); other descendants are then found and
// ended by the supervisor through their environment (local_processes.h).
#pragma once

namespace gpumod {

/// `gpumod shim UNIT`, started by the local supervisor and by nobody else: what to run comes as a memory file on
/// standard input, the report goes to standard output. Returns the process's exit code.
int shim_main(int argc, char** argv);

}  // namespace gpumod
