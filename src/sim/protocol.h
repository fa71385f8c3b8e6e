// What the broker of the simulated GPU is asked, and how it answers: lines of text over a Unix stream socket, so that a
// library of plain C, a Python script and a person with `nc -U` can all speak it. A binary protocol would be faster and
// could be seen by nobody; a call takes some ten microseconds as it is.
//
// A request is one line of words; the last word of some takes the rest of the line. Who asks is known from the socket
// (SO_PEERCRED), never from what is said. Amounts are bytes, INDEX is NVML's. One request at a time on a connection:
// the next line is read when the last one is answered.
//
//   gpus                          ok UUID UUID …
//   memory INDEX                  ok TOTAL RESERVED USED FREE      (TOTAL is the sum of the others)
//   allocate INDEX BYTES LABEL    ok | error out-of-memory MESSAGE | error lost MESSAGE
//   release INDEX LABEL           ok
//   kind INDEX LIST               ok       in which of NVML's lists the asking process stands: compute (if not said),
//                                          graphics, mps, or both of the first two
//   wait INDEX BYTES MS           ok, as soon as so much is free | error timeout MESSAGE     (milliseconds by the clock)
//   held INDEX MS LABEL           ok, as soon as somebody holds memory under that label | error timeout MESSAGE
//   curve DELAY RAMP listed|unlisted [always]
//                                 ok       how memory comes back when a process ends (simulated time: "90s", "0s"),
//                                          with `always` also when a living one gives some back
//   fault NAME[=VALUE]            ok       see faults.h
//   clear NAME                    ok
//   xid INDEX CODE                ok       a critical error on the GPU, for those who wait for events
//   position                      ok NUMBER, that of the latest event
//   next NUMBER MS                ok NUMBER INDEX TYPE DATA: the first event after NUMBER | error timeout MESSAGE
//   state                         one line of JSON, for people, tests and the demo
//   look                          all that NVML shows, in lines:
//                                   driver VERSION
//                                   gpu INDEX TOTAL RESERVED USED FREE LOST UUID NAME     (LOST: 0 or 1)
//                                   slice INDEX PARENT INSTANCE        (behind its "gpu": it is a MIG device of PARENT)
//                                   process INDEX LIST PID BYTES COMMAND
//                                   fault NAME VALUE
//                                   end
//
// Anything else is answered with "error usage MESSAGE" and the connection stays. A line that is too long closes it.
#pragma once

#include <cstddef>

namespace gpumod::sim {

constexpr const char* socket_variable = "GPUMOD_SIM_GPU";  ///< environment: the path of the broker's socket
constexpr std::size_t longest_request = 4096;
constexpr std::size_t most_gpus = 64;

}  // namespace gpumod::sim
