// The declarations: one entry a verb, in the order in which help lists them.

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "verbs/handlers.h"
#include "verbs/verb.h"

namespace gpumod {

namespace json = boost::json;

namespace {

using Kind = Parameter::Kind;
using Names = Parameter::Names;
using Effect = Verb::Effect;

Parameter mode_id() {
  return {"mode", Kind::text, true, true, "the mode's id", Names::modes, "MODE"};
}
Parameter service_id() {
  return {"service", Kind::text, true, true, "the service's id", Names::services, "SERVICE"};
}
Parameter dry_run() {
  return {"dry-run", Kind::flag, false, false, "print the plan and change nothing"};
}

Parameter model_name(Names names, const char* help, const char* value_name = "MODEL") {
  return {"model", Kind::text, true, true, help, names, value_name};
}
Parameter offline() {
  return {"offline", Kind::flag, false, false, "ask nobody: what was fetched before counts"};
}

/// What a model would take depends on these.
std::vector<Parameter> with_estimate_options(std::vector<Parameter> parameters) {
  const std::vector<Parameter> options{
      {"context", Kind::integer, false, false, "tokens of context (what the model was trained with)", Names::none, "N"},
      {"gpu-layers", Kind::integer, false, false, "layers on the GPU, the output counted as one (all)", Names::none,
       "N"},
      {"cache-type", Kind::list, false, false, "types of the caches of keys and values (f16)", Names::none, "TYPE"},
      {"parallel", Kind::integer, false, false, "slots with a cache each (four that share one)", Names::none, "N"},
      {"n-cpu-moe", Kind::integer, false, false, "layers whose experts stay in host memory (0)", Names::none, "N"},
      {"cpu-moe", Kind::flag, false, false, "the experts of all layers stay in host memory"},
      {"override-tensor", Kind::text, false, false, "where tensors go: PATTERN=CPU,PATTERN=CUDA0", Names::none,
       "RULES"},
      {"gpu-memory", Kind::integer, false, false, "memory of a GPU, in MiB, for vLLM (what the first GPU has)",
       Names::none, "MIB"},
      {"utilization", Kind::text, false, false, "vLLM's --gpu-memory-utilization (0.9)", Names::none, "FRACTION"},
      {"tensor-parallel", Kind::integer, false, false, "GPUs that share a vLLM model (1)", Names::none, "N"},
      {"tensors", Kind::flag, false, false, "list every tensor instead of their number"}};
  parameters.insert(parameters.end(), options.begin(), options.end());
  return parameters;
}

constexpr auto switch_shape =
    R"({"switch":{"id","from","to","result","seconds","steps":[{"service","unit","action","seconds","attempts","result","note"}],"vram":{"before","after","peak"}},"notes":[…] where something was left as it is})";

constexpr auto simulation_shape =
    R"({"simulation":{"to","services","fits":true, false or null (not known),"problem","missing","margin","imagined","gpus":[{"gpu","name","uuid","total","free_now","free_after","lowest":{"free","moment"}}],"claims":[{"service","bytes","source"}],"steps":[…],"timeline":[{"edge","step","action","subject","gpus":[{"gpu","free","held":[{"name","bytes"}]}]}],"alternatives":[{"changes":[{"kind","service","text","loses","edit"}],"loss","lowest"}],"notes"}})";

constexpr auto qa_shape =
    R"({"qa":{"id","began","seconds","result","sequence","rounds","environment":{"gpumod","driver","gpus","unit_manager","services"},"transitions":[{"switch","from","to","result","seconds","vram":{"before","peak","after","ours"},"steps","services":[{"service","kind","passed","figures":{…},"answer","reasoning","problems","note"}],"orphans":[…],"foreign":[…],"waits":[{"subject","for","cause","seconds"}],"curve":[{"at","gpu","used"}],"logs":[…],"problem","note"}],"issues":[{"kind","title","service","transitions","symptom","cause","impact","remedy","log"}],"restored","compared":null or {"before","after","regressions","improvements","changes","missing"},"reports":["…"]}})";

constexpr auto simulation_details =
    "Shows the memory of each GPU over the time of the switch, not only at its end. Nothing is started or stopped.\n"
    "Where it does not fit the exit code is 3, and what would fit is listed, the least loss first: another GPU,\n"
    "smaller caches, contexts or quantizations, services asleep. Each of these was simulated too.";

/// What both kinds of simulation take beside their subject.
std::vector<Parameter> simulation_parameters(Parameter subject) {
  return {std::move(subject),
          {"add", Kind::list, false, false, "services more", Names::services, "SERVICE"},
          {"remove", Kind::list, false, false, "services less", Names::services, "SERVICE"},
          {"context", Kind::list, false, false, "another context for a service", Names::none, "SERVICE=TOKENS"},
          {"gpu", Kind::list, false, false, "an empty GPU that is not there: \"RTX 4090\", or mine=24GiB", Names::none,
           "NAME=SIZE"},
          {"visual", Kind::flag, false, false, "draw the memory as bars"}};
}

std::vector<Verb> declare() {
  return {
      {"init",
       "Look around on this machine and write a first configuration",
       "Finds engine binaries, virtual environments, GGUF files, the Hugging Face cache and units you already have, "
       "shows what it\n"
       "would write, and writes it after you agree. Existing files are never changed. With --json nothing is asked: it "
       "only\n"
       "shows, and with --yes it writes.",
       Effect::edits,
       {{"yes", Kind::flag, false, false, "write without asking", Names::none, "", 'y'},
        {"models", Kind::list, false, false, "folders to look for GGUF files in", Names::none, "DIR"},
        {"llama-server", Kind::text, false, false, "where llama-server is", Names::none, "FILE"},
        {"apply", Kind::flag, false, false, "write what was found (what faces send after consent)"}},
       R"({"found":{…},"files":[{"path","text","exists"}],"written":[…],"advice":[…]})",
       init},
      {"demo",
       "See modes switch on a simulated GPU, in a private directory",
       "Replays blank, code, rag, code, nemotron, blank with the real gpumod, simulated engines and a simulated RTX "
       "4090. Nothing\n"
       "of yours is read or touched, and nothing stays behind. With a fault, the table says what happened and what was "
       "done about it.",
       Effect::reads,
       {{"modes", Kind::list, false, false, "the modes to switch to: blank, code, rag, nemotron", Names::none, "MODE"},
        {"fault", Kind::text, false, false, "what goes wrong; `list` describes them all", Names::none, "NAME"},
        {"speed", Kind::text, false, false, "how many times faster than real the engines run (12)", Names::none, "N"},
        {"report", Kind::text, false, false, "write what was seen as Markdown, JSON and HTML into this folder",
         Names::none, "DIR"},
        {"keep", Kind::flag, false, false, "leave the private directory behind, with its files and logs"}},
       R"({"passed","transitions":[{"from","to","seconds","result","notes","vram","steps"}],"orphans":[{"pid","command","vram"}],"final_vram","reports":["…"]})",
       demo},
      {"status",
       "Show services, VRAM, and how what runs differs from what should",
       "",
       Effect::reads,
       {{"visual", Kind::flag, false, false, "draw who holds each GPU's memory as a bar, with a legend"}},
       R"({"mode","unit_manager","gpus":[{"index","name","total","free","processes":[…],"ledger":{"total","reserved","managed","orphan","foreign","unattributed","free","holders":[…],"slices":[…]}}],"gpu_problem","services":[{"id","state","outdated","wanted",…}],"orphans":[{"unit","tag","state","pids","broken_file"}],"differences":[{"service","kind","wanted","is","text","repair_mends"}],"deviations":[{"service","kind","text"}],"switch":null or {"under_way","id","verb","pid","since","seconds"} or {"under_way","id","kind","text","hint"},"problems":[…],"notes":[…]})",
       status},
      {"gpu list",
       "List the GPUs, their memory and their MIG devices",
       "Asks the NVIDIA driver alone: it needs no configuration. Without a driver or a GPU, the exit code is 7.",
       Effect::reads,
       {},
       R"({"driver","gpus":[{"index","name","uuid","total","reserved","used","free","persistence","mig","slices":[{"uuid","name","gpu_instance","compute_instance","total","reserved","used","free"}]}],"missing":[{"index","problem"}]})",
       gpu_list},
      {"gpu processes",
       "List the processes on the GPUs: whose they are, and what they hold",
       "A process is of a service, an orphan (of ours, but no goal wants it, or it has left its unit), or foreign. "
       "What "
       "the driver\n"
       "does not tell is 'not available'. Processes in containers are of the service that declares the container.",
       Effect::reads,
       {},
       R"({"processes":[{"gpu","slice","pid","user","command","holder","why","services","unit","used"}]})",
       gpu_processes},
      {"gpu watch",
       "Show who holds each GPU's memory, anew whenever it changes, until Ctrl-C",
       "The driver reports no changes, so it is asked again and again. With --json each change is one object on a line "
       "of its own;\n"
       "without a terminal it is one line of text a GPU. Ctrl-C, SIGTERM and a reader that goes away end it, with exit "
       "code 0.",
       Effect::reads,
       {{"interval", Kind::text, false, false, "seconds between two looks, 0.1 to 3600 (1)", Names::none, "SECONDS"}},
       R"({"time","gpus":[{"index","uuid","name","mig","ledger":{…}}]} or {"time","problem":{"code","message","hint"}})",
       gpu_watch},
      {"mode list",
       "List the modes",
       "",
       Effect::reads,
       {},
       R"({"modes":[{"id","name","services","optional","active"}]})",
       mode_list},
      {"mode show",
       "Show one mode and its services",
       "",
       Effect::reads,
       {mode_id()},
       R"({"mode":{…,"members":[…]}})",
       mode_show},
      {"mode status",
       "Show the mode that is the goal, and whether it is reached",
       "",
       Effect::reads,
       {},
       R"({"mode","in_order","services":[…],"differences":[…],"orphans":[…],"deviations":[…],"switch","notes":[…]})",
       mode_status},
      {"mode switch",
       "Switch to a mode: stop what it does not want, start and verify what it wants",
       "A switch is a transaction. It stops everything of ours outside the mode, proves that its memory is free, "
       "starts what is\n"
       "missing, asks each service a real question, and commits. If something fails, what ran before is restored and "
       "the cause\n"
       "is named. Closing the terminal does not stop it; Ctrl-C takes it back, and so does gpumod mode cancel.",
       Effect::mutates,
       {mode_id(), dry_run()},
       switch_shape,
       mode_switch},
      {"mode cancel",
       "Take back the change that is under way, and wait until it is taken back",
       "Whoever began it: a switch in another terminal, or one whose terminal is gone. What ran before is restored. A "
       "change that\n"
       "is on its way back already is waited for. What has ended meanwhile stays as it is, and what another began "
       "then\n"
       "goes on: --pid names the change that is meant, as status and the refusal of a second change show it.",
       Effect::reads,
       {{"pid", Kind::integer, false, false, "only the change of this worker", Names::none, "PID"}},
       R"({"cancelled":{"verb","pid"},"switch":{"id","from","to","result","seconds","steps",…}})",
       mode_cancel},
      {"mode create",
       "Write a new mode file",
       "",
       Effect::edits,
       {mode_id(),
        {"services", Kind::list, false, false, "ids of its services", Names::services, "SERVICE"},
        {"name", Kind::text, false, false, "its name for people", Names::none, "NAME"},
        {"description", Kind::text, false, false, "what it is for", Names::none, "TEXT"}},
       R"({"created":{"mode","file"}})",
       mode_create},
      {"mode edit",
       "Edit a mode file in $EDITOR; it is swapped in when it is valid",
       "",
       Effect::edits,
       {mode_id(),
        {"text", Kind::text, false, false, "the new content of the file, instead of an editor", Names::none, "TEXT"}},
       R"({"edited":{"mode","file"}})",
       mode_edit},
      {"mode remove",
       "Remove a mode file",
       "",
       Effect::edits,
       {mode_id()},
       R"({"removed":{"mode","file"}})",
       mode_remove},
      {"history",
       "List the switches that were made, the newest first: how long they took, and how they ended",
       "Those that a bench or a quality run made are left out: there are many of them, and a note says how many.",
       Effect::reads,
       {{"limit", Kind::integer, false, false, "how many (20)", Names::none, "N", 'n'},
        {"all", Kind::flag, false, false, "those of benches and quality runs as well"}},
       R"({"switches":[{"id","what","kind","from","to","began","seconds","predicted_seconds","result","cause","recorded"}],"notes":[…]})",
       history},
      {"history show",
       "Show one switch over its time: why it took so long, what it waited for, who held the memory",
       "A bar for each step, the memory of each GPU below it, then waits and failures with their causes and the lines "
       "of "
       "the log\n"
       "that mattered. A switch that is under way, or was cut off, is shown as far as its journal tells.",
       Effect::reads,
       {{"switch", Kind::text, true, false, "its number, or last: the newest", Names::none, "ID|last"},
        {"trace", Kind::text, false, false, "write it as a trace that Perfetto (ui.perfetto.dev) opens", Names::none,
         "FILE"}},
       R"({"recording":{"id","what","kind","from","to","began","seconds","predicted_seconds","result","partial","failure":{"cause","remedy","step"} or null,"steps":[{"step","action","subject","service","unit","undo","result","attempts","began","ended","seconds","predicted_seconds","note","after":[…],"phases":[{"name","attempt","from","until"}],"troubles":[{"attempt","at","cause","remedy","log":[…]}]}],"waits":[{"step","for","cause","from","until"}],"gpus":[{"index","name","total","predicted_peak","peak"}],"curve":[{"at","gpu","used","held":{…},"unheld"}]},"summary":[…],"note","trace"})",
       history_show},
      {"bench switch",
       "Measure how long switches between modes take, and compare with an earlier measurement",
       "A round stops everything of ours, switches to the first mode, and then through the others back to the first; "
       "what ran before\n"
       "runs again afterwards, also after Ctrl-C. Cold means that the files of models that are to be started are "
       "dropped "
       "from the\n"
       "page cache first, where that works; how much of them stayed is told. The exit code is 1 where a switch failed, "
       "or one is\n"
       "slower than before by more than chance explains: a tenth, 0.1 s, and three times the spread.",
       Effect::mutates,
       {{"modes", Kind::list, false, false, "the modes to go through (all)", Names::modes, "MODE"},
        {"rounds", Kind::integer, false, false, "how many times each switch is measured (3)", Names::none, "N"},
        {"warm-up", Kind::integer, false, false, "rounds before, that do not count (1)", Names::none, "N"},
        {"cold", Kind::flag, false, false, "read models from the disk, not from the page cache"},
        {"compare", Kind::text, false, false, "what an earlier bench switch --json printed", Names::none, "FILE"}},
       R"({"bench":{"version","began","modes":[…],"rounds","warm_up","cold","gpus":[…],"driver","transitions":[{"from","to","seconds":{"median","spread","least","most","all":[…]},"failed","cause","steps":[{"action","subject","seconds":{…}}],"switches":[…],"cache":{"files","bytes","cached_before","cached_after","problems":[…]} or null}],"compared":{"file","regressions":[{"from","to","before","after","seconds","percent","text","steps":[{"action","subject","before","after"}]}],"improvements":[…],"missing":[…],"notes":[…]}}})",
       bench_switch},
      {"simulate mode", "Think a switch to a mode through, and show what it would do to memory", simulation_details,
       Effect::reads, simulation_parameters(mode_id()), simulation_shape, simulate_mode},
      {"simulate services", "The same for services that no mode names together", simulation_details, Effect::reads,
       simulation_parameters(
           {"services", Kind::list, true, true, "ids of the services that would run", Names::services, "SERVICE"}),
       simulation_shape, simulate_services},
      {"service list",
       "List the services and how they are",
       "",
       Effect::reads,
       {},
       R"({"services":[{"id","name","engine","port","state",…}]})",
       service_list},
      {"service show",
       "Show what a service's file declares, and what it takes of the GPUs: declared, estimated and measured",
       "Where these differ by more than a tenth, that is said. What counts for the plan is what it claims: measured "
       "before\n"
       "estimated before declared; a vLLM always claims its gpu_memory_utilization.",
       Effect::reads,
       {service_id()},
       R"({"service":{…,"outdated","memory":{"declared","estimated":{"total","weights","kv","compute","context","reserve",…} or null,"not_estimated","measured":[{"gpu","peak","steady","runs","newest","seconds"}],"claims":[{"gpu","name","bytes","source"}],"warnings":[…]}}})",
       service_show},
      {"service status",
       "Show how one service is",
       "",
       Effect::reads,
       {service_id()},
       R"({"service":{…}})",
       service_status},
      {"service start",
       "Start a service beside what runs; it belongs to the goal until the next mode switch",
       "",
       Effect::mutates,
       {service_id(), dry_run()},
       switch_shape,
       service_start},
      {"service stop",
       "Stop a service and prove that its memory is free",
       "",
       Effect::mutates,
       {service_id(), dry_run()},
       switch_shape,
       service_stop},
      {"service restart",
       "Stop and start a service",
       "",
       Effect::mutates,
       {service_id(), dry_run()},
       switch_shape,
       service_restart},
      {"service sleep",
       "Put a service to sleep, or unload a router's model: its process stays, its memory is given back",
       "",
       Effect::mutates,
       {service_id(), dry_run()},
       switch_shape,
       service_sleep},
      {"service wake",
       "Wake a sleeping service and verify that it answers",
       "",
       Effect::mutates,
       {service_id(), dry_run()},
       switch_shape,
       service_wake},
      {"service forget",
       "Forget what was measured of a service: its memory and its seconds",
       "Its next run is measured anew. What was measured under other arguments, with another model file, engine build "
       "or\n"
       "driver does not count anyway.",
       Effect::mutates,
       {service_id()},
       R"({"forgotten":{"service","runs"}})",
       service_forget},
      {"service logs",
       "Show the last lines that a service's newest run wrote",
       "",
       Effect::reads,
       {service_id(),
        {"lines", Kind::integer, false, false, "how many lines (50)", Names::none, "N", 'n'},
        {"follow", Kind::flag, false, false, "go on with each new line", Names::none, "", 'f'}},
       R"({"service","unit","lines":[{"time","text"}],"note"})",
       service_logs},
      {"repair",
       "Bring what runs to what the goal says, and finish or undo an interrupted switch",
       "",
       Effect::mutates,
       {dry_run()},
       switch_shape,
       repair},
      {"doctor",
       "Look at everything this machine needs, say what is wrong, and how to mend it",
       "Driver, unit manager, memory, disks, programs, files, ports and what runs: each look has a deadline, and one "
       "that\n"
       "fails hides no other. Exit code 0: in order, notes included; 8: warnings; 7: something is broken. --fix mends "
       "what is\n"
       "safe and yours (lingering, folders, modes of files), after showing it; what needs root is printed as a "
       "command.",
       Effect::edits,
       {{"fix", Kind::flag, false, false, "mend what is safe, after asking"},
        {"yes", Kind::flag, false, false, "do not ask", Names::none, "", 'y'},
        {"apply", Kind::flag, false, false, "mend it (what faces send after consent)"}},
       R"({"state":"ok|note|warning|failure","checks":[{"id","group","title","state":"ok|skipped|note|warning|failure","why","findings":[{"state","text","mend"}]}],"fixes":[{"check","text"}],"fixed":[{"check","text","done":true or false,"problem"}],"seconds"})",
       doctor},
      {"unit show",
       "Print the systemd unit of a service as text",
       "",
       Effect::reads,
       {service_id()},
       R"({"unit","text","installed"})",
       unit_show},
      {"unit install",
       "Install the systemd unit of a service, for people who want to start it by hand",
       "Writes a unit file of ours and reloads the user manager. A file that somebody else wrote, or that was edited "
       "since, is\n"
       "never overwritten.",
       Effect::edits,
       {service_id()},
       R"({"installed":{"unit","file"}})",
       unit_install},
      {"unit remove",
       "Remove a unit file that 'unit install' wrote",
       "",
       Effect::edits,
       {service_id()},
       R"({"removed":{"unit","file"}})",
       unit_remove},
      {"model list",
       "List the models that services declare or that were registered, and which of their files are missing",
       "",
       Effect::reads,
       {},
       R"({"models":[{"id","source","registered","path","hub":{"id","file"} or null,"architecture","parameters","quantization","context_length","bytes","files","missing":[…],"services":[…],"problem"}],"notes":[…]})",
       model_list},
      {"model info", "Show everything that is known of a model: its files, what they say, what it takes, who uses it",
       "A model of the list by its id, or a path. ORG/NAME or ORG/NAME:FILE asks Hugging Face for metadata, and never "
       "for\n"
       "weights; what it answers is kept, and counts when there is no network. The options are those of model inspect.",
       Effect::reads,
       with_estimate_options(
           {model_name(Names::models, "a model's id, a path, or ORG/NAME[:FILE]", "MODEL|FILE"), offline()}),
       R"({"id","source","registered","path","hub":{"id","file","revision","gated"} or null,"services":[…],"files":[{"path","role","bytes","modified","sha256","problem"}],"missing":[…], and what model inspect answers})",
       model_info},
      {"model register",
       "Remember a model under an id of its own",
       "The record says where the model is and what was read of it; the files stay where they are, and no service's "
       "file is\n"
       "changed. From Hugging Face only metadata is fetched. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE count as usual.",
       Effect::edits,
       {model_name(Names::none, "the id that it gets: NAME or ORG/NAME"),
        {"path", Kind::text, false, false, "a GGUF file, or the folder of a model", Names::none, "FILE"},
        {"hf", Kind::text, false, false, "a model on Hugging Face, as ORG/NAME or ORG/NAME:FILE", Names::none, "NAME"},
        offline()},
       R"({"registered":{"model","source","where","architecture","parameters","quantization","context_length","bytes"}})",
       model_register},
      {"model remove",
       "Remove the record of a model; its files stay",
       "",
       Effect::edits,
       {model_name(Names::models, "the model's id")},
       R"({"removed":{"model","where"},"notes":[…]})",
       model_remove},
      {"model scan",
       "Look through a folder for models, and register them on demand",
       "Finds GGUF files (a split one is one model, a projector belongs to its model) and folders with safetensors. "
       "What is left\n"
       "out is listed with the reason. Hidden folders and network drives below DIR are not looked into.",
       Effect::edits,
       {{"folder", Kind::text, true, true, "where to look", Names::none, "DIR"},
        {"register", Kind::flag, false, false, "register what is found, under ids made of the names"}},
       R"({"folder","models":[…as model list…],"registered":[ids],"left_out":[{"path","why"}],"notes":[…]})",
       model_scan},
      {"model inspect", "Show what a model file says, and what the model would take of a GPU",
       "Reads the header of a GGUF file (any part of a split one) or of a Hugging Face folder, never the weights. The "
       "memory is\n"
       "that of llama-server or of vLLM with these options; what is an approximation is called one. Where "
       "llama-fit-params is\n"
       "installed, its figures count.",
       Effect::reads,
       with_estimate_options(
           {{"path", Kind::text, true, true, "a GGUF file, or a folder with a model", Names::none, "FILE"}}),
       R"({"model":{"name","format","files","bytes"},"architecture","parameters","layers","context_length","quantization":{"name","types":[…]},"attention","state","experts","tokenizer","tensors","vram":{"source","weights","kv","compute","context","total","gpus":[…],"host","assumptions":[…]} or null,"notes":[…]})",
       model_inspect},
      {"qa run",
       "Prove the box: switch through the modes, ask every service, keep a report, compare it with the last",
       "Without --modes every ordered pair of modes is switched once, beginning and ending where the box is. After\n"
       "each switch every service is examined: its answer, tokens per second, time to the first token; an\n"
       "embedding's dimensions, norm and whether it means something. What was left behind, who else holds memory, and\n"
       "what went wrong is told with its cause. It goes on after a switch that failed, and restores what ran before\n"
       "at its end, also after Ctrl-C.",
       Effect::mutates,
       {{"modes", Kind::list, false, false, "the modes to go through, in this order", Names::modes, "MODE"},
        {"rounds", Kind::integer, false, false, "how often (1); several tell noise from a regression", Names::none,
         "N"},
        {"report", Kind::text, false, false, "write it as Markdown, JSON and HTML into this folder", Names::none,
         "DIR"},
        {"fail-on-regression", Kind::flag, false, false,
         "exit with 1 when something is worse than in the last run of the same sequence"},
        {"dry-run", Kind::flag, false, false, "print the tour and change nothing"}},
       qa_shape,
       qa_run},
      {"qa list",
       "List the quality runs that are kept",
       "",
       Effect::reads,
       {{"limit", Kind::integer, false, false, "how many (20)", Names::none, "N", 'n'}},
       R"({"runs":[{"id","began","seconds","result","sequence","rounds","transitions","passed","issues","regressions"}]})",
       qa_list},
      {"qa show",
       "Show a quality run again",
       "",
       Effect::reads,
       {{"run", Kind::text, true, true, "its number, last, or the JSON file of a report", Names::none, "RUN"},
        {"report", Kind::text, false, false, "write it as Markdown, JSON and HTML into this folder", Names::none,
         "DIR"}},
       qa_shape,
       qa_show},
      {"qa diff",
       "Compare two quality runs: what has become worse, and by how much",
       "Figures that differ by less than a tolerance are the same; where a run went through its sequence several\n"
       "times, its spread widens the tolerance.",
       Effect::reads,
       {{"before", Kind::text, true, true, "the earlier: its number, or the JSON file of a report", Names::none,
         "BEFORE"},
        {"after", Kind::text, true, true, "the later: its number, last, or a file", Names::none, "AFTER"},
        {"fail-on-regression", Kind::flag, false, false, "exit with 1 when something is worse"}},
       R"({"diff":{"before","after","regressions":[{"kind","subject","before","after","tolerance","unit","text"}],"improvements":[…],"changes":["…"],"missing":["…"]}})",
       qa_diff},
      {"mcp install",
       "Set an assistant's program up to use gpumod: claude-code, cursor, vscode and others",
       "Writes into the program's own configuration that it can start gpumod mcp. Everything else in that file stays,\n"
       "comments included; what was there before is kept beside it, as FILE.before-gpumod. Clients: claude-code,\n"
       "claude-desktop, cursor, vscode, windsurf, gemini, zed, opencode, codex, copilot, qwen, kiro, lmstudio.",
       Effect::edits,
       {{"client", Kind::text, true, true, "the program to set up", Names::none, "CLIENT"},
        {"print", Kind::flag, false, false, "show what belongs into its configuration, and write nothing"},
        {"project", Kind::flag, false, false, "for the project in the working directory alone"},
        {"file", Kind::text, false, false, "another file than the usual one", Names::none, "FILE"}},
       R"({"installed":{"client","file","changed","backup"}} or {"shown":{"client","file","text","entry","changed"}})",
       mcp_install},
      {"config check",
       "Read every file of the catalogue and report every problem",
       "",
       Effect::reads,
       {},
       R"({"directory","services","modes","problems":[{"severity","where","message","hint"}]})",
       config_check},
  };
}

}  // namespace

const std::vector<Verb>& all_verbs() {
  static const std::vector<Verb> verbs = declare();
  return verbs;
}

Result<const Verb*> find_verb(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& verb : all_verbs()) {
    if (verb.name == name) return &verb;
    names.push_back(verb.name);
  }
  return fail(ErrorCode::usage, fmt::format("there is no verb '{}'", printable(name)), did_you_mean(name, names));
}

Result<void> check_request(const Verb& verb, const json::object& request) {
  for (const auto& parameter : verb.parameters) {
    const auto* value = request.if_contains(parameter.name);
    if (!value) {
      if (parameter.required)
        return fail(ErrorCode::usage, fmt::format("{} needs {}: {}", verb.name, parameter.value_name, parameter.help));
      continue;
    }
    const bool right = parameter.kind == Kind::text      ? value->is_string()
                       : parameter.kind == Kind::integer ? value->is_int64()
                       : parameter.kind == Kind::flag
                           ? value->is_bool()
                           : value->is_array() && std::all_of(value->as_array().begin(), value->as_array().end(),
                                                              [](const auto& item) { return item.is_string(); });
    if (!right)
      return fail(ErrorCode::usage, fmt::format("'{}' of {} has a value of the wrong kind", parameter.name, verb.name));
  }
  for (const auto& member : request) {
    const bool known = std::any_of(verb.parameters.begin(), verb.parameters.end(), [&](const Parameter& parameter) {
      return parameter.name == std::string_view(member.key());
    });
    if (!known) return fail(ErrorCode::usage, fmt::format("{} has no '{}'", verb.name, printable(member.key())));
  }
  return {};
}

std::string text_of(const json::object& request, std::string_view name) {
  const auto* value = request.if_contains(name);
  return value && value->is_string() ? std::string(value->as_string()) : std::string();
}

bool flag_of(const json::object& request, std::string_view name) {
  const auto* value = request.if_contains(name);
  return value && value->is_bool() && value->as_bool();
}

std::optional<std::int64_t> integer_of(const json::object& request, std::string_view name) {
  const auto* value = request.if_contains(name);
  return value && value->is_int64() ? std::optional(value->as_int64()) : std::nullopt;
}

std::vector<std::string> list_of(const json::object& request, std::string_view name) {
  std::vector<std::string> items;
  const auto* value = request.if_contains(name);
  if (value && value->is_array())
    for (const auto& item : value->as_array())
      if (item.is_string()) items.emplace_back(item.as_string());
  return items;
}

}  // namespace gpumod
