// The handlers, by file. Each answers what its declaration in registry.cpp promises.
#pragma once

#include <boost/json/value.hpp>

#include "verbs/context.h"
#include "verbs/verb.h"

namespace gpumod {

using Request = boost::json::object;
using Answer = Task<Result<boost::json::value>>;

Answer status(Context& context, Request request);
Answer repair(Context& context, Request request);
Answer doctor(Context& context, Request request);
Answer config_check(Context& context, Request request);

Answer mode_list(Context& context, Request request);
Answer mode_show(Context& context, Request request);
Answer mode_status(Context& context, Request request);
Answer mode_switch(Context& context, Request request);
Answer mode_cancel(Context& context, Request request);
Answer mode_create(Context& context, Request request);
Answer mode_edit(Context& context, Request request);
Answer mode_remove(Context& context, Request request);

Answer gpu_list(Context& context, Request request);
Answer gpu_processes(Context& context, Request request);
Answer gpu_watch(Context& context, Request request);

Answer history(Context& context, Request request);
Answer history_show(Context& context, Request request);

Answer bench_switch(Context& context, Request request);

Answer simulate_mode(Context& context, Request request);
Answer simulate_services(Context& context, Request request);

Answer service_list(Context& context, Request request);
Answer service_show(Context& context, Request request);
Answer service_status(Context& context, Request request);
Answer service_start(Context& context, Request request);
Answer service_stop(Context& context, Request request);
Answer service_restart(Context& context, Request request);
Answer service_sleep(Context& context, Request request);
Answer service_wake(Context& context, Request request);
Answer service_forget(Context& context, Request request);
Answer service_logs(Context& context, Request request);

Answer unit_show(Context& context, Request request);
Answer unit_install(Context& context, Request request);
Answer unit_remove(Context& context, Request request);

Answer model_list(Context& context, Request request);
Answer model_info(Context& context, Request request);
Answer model_register(Context& context, Request request);
Answer model_remove(Context& context, Request request);
Answer model_scan(Context& context, Request request);
Answer model_inspect(Context& context, Request request);

Answer qa_run(Context& context, Request request);
Answer qa_list(Context& context, Request request);
Answer qa_show(Context& context, Request request);
Answer qa_diff(Context& context, Request request);

Answer mcp_install(Context& context, Request request);

Answer init(Context& context, Request request);
Answer demo(Context& context, Request request);

}  // namespace gpumod
