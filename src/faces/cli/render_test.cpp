// Snapshots: what people see, from literal answers.
#include "faces/cli/render.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "faces/cli/help.h"
#include "faces/cli/table.h"
#include "verbs/verb.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr auto status_answer = R"({
  "mode": "rag", "unit_manager": "systemd",
  "gpus": [{"index": 0, "uuid": "GPU-1", "name": "RTX 4090", "total": 25769803776, "free": 12884901888, "processes": [
    {"pid": 10, "used": 10737418240, "command": "llama-server", "user": "ann", "holder": "managed", "unit": "gpumod-chat.service"},
    {"pid": 11, "used": 1073741824, "command": "firefox", "user": "ann", "holder": "foreign", "unit": null},
    {"pid": 12, "used": 536870912, "command": "python3", "user": "ann", "holder": "orphan", "unit": "old.service"}],
    "ledger": {"total": 25769803776, "reserved": null, "managed": 10737418240, "orphan": 536870912, "foreign": 1073741824,
      "unattributed": 536870912, "free": 12884901888, "overcounted": 0, "slices": [], "holders": [
      {"holder": "managed", "why": null, "name": "chat", "services": ["chat"], "unit": "gpumod-chat.service", "user": null,
       "used": 10737418240, "complete": true, "processes": []},
      {"holder": "foreign", "why": null, "name": "firefox", "services": [], "unit": null, "user": "ann",
       "used": 1073741824, "complete": true, "processes": []},
      {"holder": "orphan", "why": "undefined", "name": "old.service", "services": [], "unit": "old.service", "user": null,
       "used": 536870912, "complete": true, "processes": []}]}}],
  "gpu_problem": null,
  "services": [
    {"id": "chat", "state": "running", "detail": "", "wanted": "running", "port": 8000, "pid": 10, "vram_used": 10737418240},
    {"id": "embedding", "state": "failed", "detail": "it ended with exit code 3", "wanted": "running", "port": 8200, "pid": null, "vram_used": null},
    {"id": "coder", "state": "stopped", "detail": "", "wanted": "stopped", "port": 8000, "pid": null, "vram_used": 0}],
  "orphans": [{"unit": "old.service", "tag": "old", "state": "active", "pids": [12]}],
  "differences": [{"service": "embedding", "wanted": "running", "is": "failed", "text": "'embedding' should run but is failed"}],
  "switch": null,
  "problems": [{"severity": "warning", "where": "services/x.yaml:3:1", "message": "unknown key 'prot'", "hint": "Did you mean 'port'?"}]})";

TEST(Status, IsTheScreenForAPersonAtNight) {
  EXPECT_EQ(render_status(json::parse(status_answer), {}),
            "Mode rag — not as it should be\n"
            "\n"
            "GPU 0  RTX 4090  ████████████████████░░░░░░░░░░░░░░░░░░░░  12288 of 24576 MiB\n"
            "       chat 10240 MiB · firefox (foreign) 1024 MiB · old (orphan) 512 MiB\n"
            "\n"
            "SERVICE    STATE      WANTED   PORT  PID       VRAM\n"
            "chat       ● running  running  8000   10  10240 MiB\n"
            "embedding  ✘ failed   running  8200                  it ended with exit code 3\n"
            "coder      ○ stopped           8000\n"
            "\n"
            "! 'embedding' should run but is failed\n"
            "! orphan: old.service is active (pid 12), but no file defines it\n"
            "  gpumod repair puts this in order.\n"
            "\n"
            "Problems in your files:\n"
            "  services/x.yaml:3:1: warning: unknown key 'prot'. Did you mean 'port'?\n");
}

TEST(Status, PromisesNothingThatRepairCannotDo) {
  auto answer = json::parse(status_answer).as_object();
  answer["orphans"].as_array()[0].as_object()["broken_file"] = "services/old.yaml:3";
  EXPECT_THAT(
      render_status(answer, {}),
      HasSubstr("! old.service is active (pid 12), and its file is broken: correct services/old.yaml:3, or gpumod "
                "service stop old\n  gpumod repair puts this in order.\n"));
  auto& difference = answer["differences"].as_array()[0].as_object();
  difference["repair_mends"] = false;
  EXPECT_THAT(render_status(answer, {}), Not(HasSubstr("puts this in order"))) << "neither of the two is repair's";
  answer["orphans"].as_array()[0].as_object()["broken_file"] = nullptr;
  EXPECT_THAT(render_status(answer, {}), HasSubstr("puts this in order")) << "one is";
  difference["kind"] = "port";
  EXPECT_THAT(render_status(answer, {}), Not(HasSubstr("puts this in order"))) << "but not before the port is free";
}

TEST(Status, DrawsTheMemoryWhenAskedTo) {
  const auto text = render_status(json::parse(status_answer), {}, Picture::visual);
  EXPECT_THAT(text, HasSubstr("GPU 0  RTX 4090  12288 of 24576 MiB\n  ██"));
  EXPECT_THAT(text, HasSubstr("\n  !    512 MiB  old.service   orphan: no file defines it\n"));
  EXPECT_THAT(text, HasSubstr("\nSERVICE    STATE")) << "all else stays";
}

TEST(Status, SaysWhereAGpusMemoryCannotBeRead) {
  auto answer = json::parse(status_answer).as_object();
  for (const char* key : {"total", "free"})
    answer["gpus"].as_array()[0].as_object()[key] = nullptr;
  EXPECT_THAT(render_status(answer, {}),
              HasSubstr("GPU 0  RTX 4090  its memory cannot be read\n       chat 10240 MiB"));
}

TEST(Gpus, AreATableWithTheirSlices) {
  const auto answer = json::parse(R"({"driver":"580.65.06","gpus":[
    {"index":0,"name":"RTX 4090","uuid":"GPU-1","total":25757220864,"reserved":364904448,"used":9663676416,"free":15728640000,
     "persistence":true,"mig":null,"slices":[]},
    {"index":1,"name":"A100","uuid":"GPU-2","total":null,"reserved":null,"used":null,"free":null,"persistence":null,"mig":true,
     "slices":[{"uuid":"MIG-1","name":"MIG 1g.10gb","gpu_instance":9,"compute_instance":0,"total":1048576,"reserved":0,"used":0,
                "free":1048576}]}],
    "missing":[{"index":2,"problem":"GPU is lost"}]})");
  EXPECT_EQ(render_gpu_list(answer, {}),
            "GPU  NAME                   TOTAL  RESERVED           USED           FREE  PERSISTENCE  MIG  UUID\n"
            "  0  RTX 4090           24564 MiB   348 MiB       9216 MiB      15000 MiB  on                GPU-1\n"
            "  1  A100           not available            not available  not available               on   GPU-2\n"
            "     — MIG 1g.10gb          1 MiB     0 MiB          0 MiB          1 MiB               9/0  MIG-1\n"
            "! GPU 2 is left out: GPU is lost\n"
            "Driver 580.65.06\n");
}

TEST(GpuProcesses, SayWhoseTheyAre) {
  const auto answer = json::parse(R"({"processes":[
    {"gpu":0,"slice":null,"pid":10,"user":"ann","command":"vllm","holder":"managed","why":null,"services":["chat"],"unit":"u","used":1048576},
    {"gpu":0,"slice":null,"pid":11,"user":"ann","command":"python3","holder":"orphan","why":"escaped","services":["chat"],"unit":null,"used":null},
    {"gpu":0,"slice":null,"pid":12,"user":"ann","command":"x","holder":"orphan","why":"undefined","services":[],"unit":"old.service","used":1048576},
    {"gpu":0,"slice":null,"pid":13,"user":"bob","command":"evil\u001b[2J","holder":"foreign","why":null,"services":[],"unit":null,"used":0},
    {"gpu":1,"slice":"MIG-1","pid":14,"user":null,"command":null,"holder":"foreign","why":"unseen","services":[],"unit":null,"used":0}]})");
  const auto text = render_gpu_processes(answer, {});
  EXPECT_THAT(text, HasSubstr("  0   10          1 MiB  chat                             vllm"));
  EXPECT_THAT(text, HasSubstr("  0   11  not available  chat (orphan: escaped)           python3"));
  EXPECT_THAT(text, HasSubstr("old.service (orphan: undefined)"));
  EXPECT_THAT(text, HasSubstr("(ended, or not to be seen from here)"));
  EXPECT_THAT(text, HasSubstr("MIG-1"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(render_gpu_processes(json::parse(R"({"processes":[]})"), {}), "No process is on a GPU.\n");
}

TEST(Status, SaysSoWhenAllIsWell) {
  const auto text = render_status(
      json::parse(
          R"({"mode":"code","unit_manager":"local","gpus":[],"services":[],"orphans":[],"differences":[],"switch":null,"problems":[]})"),
      {});
  EXPECT_THAT(text, HasSubstr("Mode code — all as it should be (local supervisor)\n"));
  EXPECT_THAT(text, Not(HasSubstr("repair")));
}

TEST(Status, NamesAnInterruptedSwitchAndTheCommandThatMendsIt) {
  auto answer = json::parse(status_answer).as_object();
  answer["switch"] = json::parse(
      R"({"id":7,"under_way":false,"kind":"mode switch","text":"switch 7 was interrupted","hint":"gpumod repair finishes it."})");
  EXPECT_THAT(render_status(answer, {}), HasSubstr("! switch 7 was interrupted\n  gpumod repair finishes it.\n"));
  EXPECT_THAT(render_status(answer, {}), Not(HasSubstr("puts this in order"))) << "once is enough";
}

TEST(Status, SaysWhatIsUnderWaySinceWhenAndHowItIsTakenBack) {
  auto answer = json::parse(status_answer).as_object();
  answer["switch"] = json::parse(
      R"({"id":7,"under_way":true,"pid":99,"verb":"mode switch code","since":"2026-02-09T21:03:11Z","seconds":187})");
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  const auto text = render_status(answer, {});
  EXPECT_THAT(text, HasSubstr("Mode rag — a change is under way\n"));
  EXPECT_THAT(text,
              HasSubstr("mode switch code is under way since 2026-02-09 21:03:11 +00:00 (3:07 min; pid 99, switch 7)\n"
                        "  gpumod history show 7 shows how far it is; gpumod mode cancel takes it back.\n"));
  EXPECT_THAT(text, Not(HasSubstr("gpumod repair")));
  answer["switch"].as_object()["id"] = nullptr;
  EXPECT_THAT(render("mode status", answer, {}),
              HasSubstr("(3:07 min; pid 99)\n  gpumod mode cancel takes it back.\n"));
}

TEST(Status, SingleServicesWithoutAModeAreNotNothing) {
  const auto headline = [](std::string_view wanted) {
    return render(
        "mode status",
        json::parse(fmt::format(
            R"({{"mode":null,"in_order":true,"switch":null,"services":[{{"id":"a","wanted":"{}"}}]}})", wanted)),
        {});
  };
  EXPECT_THAT(headline("running"), HasSubstr("No mode has been switched to yet — all as it should be\n"));
  EXPECT_THAT(headline("stopped"), HasSubstr("No mode has been switched to yet — nothing of ours runs\n"));
}

TEST(Status, AGoalThatIsNotTheWholeModeIsSaid) {
  auto answer = json::parse(R"({"mode":"code","differences":[],"orphans":[],"switch":null,"in_order":true,"deviations":[
    {"service":"chat","kind":"without","text":"mode code without 'chat': stopped by hand"},
    {"service":"asr","kind":"besides","text":"'asr' beside mode code: started by hand"}]})");
  for (const char* verb : {"status", "mode status"}) {
    const auto text = render(verb, answer, {});
    EXPECT_THAT(text, HasSubstr("Mode code without chat, with asr — all as it should be\n")) << verb;
    EXPECT_THAT(text, HasSubstr("~ mode code without 'chat': stopped by hand\n")) << verb;
    EXPECT_THAT(text, HasSubstr("~ 'asr' beside mode code: started by hand\n")) << verb;
  }
}

TEST(Status, WorksInPlainAsciiOnANarrowScreen) {
  Screen narrow;
  narrow.unicode = false;
  narrow.width = 40;
  const auto text = render_status(json::parse(status_answer), narrow);
  for (const char c : text)
    ASSERT_LT(static_cast<unsigned char>(c), 0x80) << text;
  std::size_t rows = 0;
  for (const auto line : split_lines(text)) {
    if (!line.starts_with("chat ") && !line.starts_with("embedding ") && !line.starts_with("coder ")) continue;
    EXPECT_LE(display_width(line), 40) << line;
    ++rows;
  }
  EXPECT_EQ(rows, 3u);
}

TEST(Status, ToleratesAnAnswerOfAnotherShape) {
  for (const char* odd :
       {"null", "[]", "{}", R"({"mode":7,"gpus":[3],"services":{"a":1},"differences":[null],"switch":5})"})
    EXPECT_FALSE(render_status(json::parse(odd), {}).empty()) << odd;
}

TEST(Plan, IsAnOrderedListWithReasonsAndMemory) {
  EXPECT_EQ(render_plan(json::parse(R"({"to":"rag","plan":{"steps":[
      {"step":0,"service":"chat","unit":"gpumod-chat.service","action":"stop","after":[],"gpus":[0],"claim":{},"why":"outside the goal"},
      {"step":1,"service":null,"unit":"old.service","action":"stop","after":[],"gpus":[],"claim":{},"why":"orphan"},
      {"step":2,"service":"embedding","unit":"e.service","action":"start","after":[0,1],"gpus":[0],"claim":{"0":6291456000},"why":"does not run"}],
      "free":{"before":{"0":1048576},"after":{"0":19922944000}},"notes":["vram of 'x' is unknown"]}})"),
                        {}),
            "To reach rag, these steps would be taken:\n"
            "  1.  stop   chat         outside the goal\n"
            "  2.  stop   old.service  orphan\n"
            "  3.  start  embedding    does not run      after 1, 2  6000 MiB on GPU 0\n"
            "\n"
            "GPU 0: 1 MiB free now, 19000 MiB afterwards\n"
            "note: vram of 'x' is unknown\n");
}

TEST(Plan, SaysWhereItsFiguresComeFromAndHowLongItTook) {
  EXPECT_EQ(render_plan(json::parse(R"({"to":"rag","plan":{"seconds":13.5,"steps":[
      {"step":0,"service":"chat","action":"stop","claim":{},"claim_source":"unknown","seconds":1.5,"why":"outside the goal"},
      {"step":1,"service":"embedding","action":"start","claim":{"0":6291456000},"claim_source":"measured","seconds":12,"why":"does not run"}]}})"),
                        {}),
            "To reach rag, these steps would be taken:\n"
            "  1.  stop   chat       outside the goal                                1.5 s\n"
            "  2.  start  embedding  does not run      6000 MiB on GPU 0 (measured)   12 s\n"
            "It would take about 14 s, going by earlier runs.\n");
  EXPECT_THAT(render_plan(json::parse(R"({"to":"rag","plan":{"seconds":null,"steps":[
      {"step":0,"service":"chat","action":"stop","seconds":1.5},
      {"step":1,"service":"embedding","action":"start","seconds":null}]}})"),
                          {}),
              HasSubstr("How long it would take is not known: nothing was seen yet of start embedding.\n"));
}

TEST(Plan, SaysWhenNothingWouldChange) {
  EXPECT_THAT(
      render_plan(
          json::parse(
              R"({"to":"rag","plan":{"steps":[{"step":0,"service":"chat","action":"verify","why":"runs already"}]}})"),
          {}),
      HasSubstr("Nothing would change"));
  EXPECT_THAT(render_plan(json::parse(R"({"to":"blank","plan":{"steps":[]}})"), {}),
              HasSubstr("Nothing would be done"));
}

constexpr auto committed = R"({"switch":{"id":4,"from":"code","to":"rag","result":"committed","seconds":1.234,"steps":[
  {"step":0,"service":"coder","unit":"u","action":"stop","seconds":0.4,"attempts":1,"result":"done"},
  {"step":1,"service":"embedding","unit":"v","action":"start","seconds":0.8,"attempts":2,"result":"done","note":"2048 dimensions",
   "earlier":["attempt 1: memory moved while it profiled"]}],
  "vram":{"before":1,"after":6291456000,"peak":7340032000}}})";

TEST(Switch, EndsWithOneLineAndTheAnswersOfTheProbes) {
  EXPECT_EQ(render_switch(json::parse(committed), {}, Steps::hidden),
            "code → rag: committed in 1.2 s; VRAM in use 6000 MiB, 7000 MiB at the peak\n"
            "  ! embedding: attempt 1: memory moved while it profiled\n"
            "  embedding: 2048 dimensions\n");
  EXPECT_EQ(render_switch(json::parse(committed), {}, Steps::shown, "service start embedding"),
            "✔  stop   coder      0.4 s\n"
            "✔  start  embedding  0.8 s  (attempt 2)\n"
            "service start embedding: committed in 1.2 s; VRAM in use 6000 MiB, 7000 MiB at the peak\n"
            "  ! embedding: attempt 1: memory moved while it profiled\n"
            "  embedding: 2048 dimensions\n");
}

TEST(Switch, AFailureShowsStepsCauseRemedyAndLog) {
  Error error{ErrorCode::failed, "start of 'embedding' failed: the file is no model; what ran before runs again",
              "Download it again.",
              json::parse(R"({"switch":{"id":5,"from":"code","to":"rag","result":"rolled_back","seconds":3.0,"steps":[
    {"step":0,"service":"coder","unit":"u","action":"stop","seconds":0.4,"attempts":1,"result":"done"},
    {"step":1,"service":"embedding","unit":"v","action":"start","seconds":0.8,"attempts":1,"result":"failed","note":"the file is no model",
     "remedy":"Download it again.","log":"gguf: bad magic\u001b[31m"},
    {"step":2,"service":"coder","unit":"u","action":"start","seconds":1.5,"attempts":1,"result":"done","undo":true}]}})")};
  EXPECT_EQ(render_error(error, {}),
            "✔  stop         coder      0.4 s\n"
            "✘  start        embedding  0.8 s  the file is no model\n"
            "✔  back: start  coder      1.5 s\n"
            "\n"
            "start embedding\n"
            "  why: the file is no model\n"
            "  do:  Download it again.\n"
            "  log: gguf: bad magic\uFFFD[31m\n"
            "\n"
            "code → rag: rolled back in 3.0 s\n"
            "gpumod: start of 'embedding' failed: the file is no model; what ran before runs again\n"
            "        Download it again.\n");
}

TEST(Errors, OfASingleServiceAreAboutTheServiceNotAboutTheMode) {
  const Error error{
      ErrorCode::failed, "start of 'chat' failed", "",
      json::parse(R"({"switch":{"from":"blank","to":"blank","result":"rolled_back","seconds":3.0,"steps":[]}})")};
  EXPECT_THAT(render_error(error, {}, "service start chat"), HasSubstr("service start chat: rolled back in 3.0 s\n"));
}

TEST(Errors, ProblemsOfFilesAreListed) {
  const Error error{ErrorCode::configuration, "2 errors; the first: a", "",
                    json::parse(R"({"directory":"/c","services":2,"modes":1,"problems":[
    {"severity":"error","where":"services/a.yaml:1:2","message":"no","hint":""},
    {"severity":"warning","where":"services/b.yaml:3:4","message":"hm","hint":"Try x."}]})")};
  EXPECT_EQ(render_error(error, {}),
            "services/a.yaml:1:2: error: no\n"
            "services/b.yaml:3:4: warning: hm. Try x.\n"
            "/c: 2 services, 1 mode, 1 error, 1 warning\n");
}

TEST(Status, WhatHasHungIsNotCalledStarting) {
  const auto shown = [](bool under_way) {
    return render_status(
        json::value{
            {"mode", "code"},
            {"switch", {{"under_way", under_way}, {"id", 7}}},
            {"services", json::array{json::object{
                             {"id", "chat"}, {"state", "starting"}, {"wanted", "running"}, {"detail", "timed out"}}}}},
        {});
  };
  EXPECT_THAT(shown(false), HasSubstr("not answering"));
  EXPECT_THAT(shown(true), HasSubstr("starting"));
  EXPECT_THAT(shown(true), HasSubstr("gpumod history show 7 shows how far it is"));
}

TEST(Service, TimesHaveAName) {
  EXPECT_THAT(
      render_service(
          json::parse(R"({"service":{"memory":{"measured":[{"gpu":"X","seconds":{"start":{"median":0.1}}}]}}})"), {}),
      HasSubstr("times:    start 0.1 s\n"));
}

TEST(Init, SaysWhatToDoNextOnceItIsWritten) {
  const char* look = R"({"files":[{"path":"/c/gpumod.yaml","text":"a: 1","exists":false}],"written":[],
    "advice":["Take care.","Next: gpumod mode switch coder","Then: curl x"]})";
  EXPECT_THAT(render_init(json::parse(look), {}), AllOf(HasSubstr("Take care."), Not(HasSubstr("gpumod mode switch"))));
  const char* done = R"({"files":[{"path":"/c/gpumod.yaml","text":"a: 1","exists":false}],"written":["/c/gpumod.yaml"],
    "advice":["Next: gpumod mode switch coder"]})";
  EXPECT_THAT(render_init(json::parse(done), {}), HasSubstr("gpumod mode switch coder"));
}

TEST(Help, ListsTheExitCodesAlone) {
  const auto listed = help_about({"exit-codes"}, all_verbs(), {});
  ASSERT_TRUE(listed);
  EXPECT_THAT(*listed, HasSubstr("  130  cancelled"));
}

TEST(Errors, SayEachProblemOnce) {
  const Error error{ErrorCode::refused, "service 'a': model /m is not there (and 1 more problem)", "Correct model:.",
                    json::parse(R"({"problems":[
    {"message":"service 'a': model /m is not there","hint":"Correct model:."},
    {"message":"service 'a': no option --x","hint":"Take it out."}]})")};
  EXPECT_EQ(render_error(error, {}),
            "gpumod: service 'a': model /m is not there (and 1 more problem)\n"
            "        Correct model:.\n"
            "        service 'a': no option --x. Take it out.\n");
}

TEST(Errors, AMessageOfSeveralLinesCannotDriveTheTerminal) {
  EXPECT_EQ(render_error(Error{ErrorCode::failed, "first\nsecond \x1b[2J", "do this", {}}, {}),
            "gpumod: first\n"
            "        second \uFFFD[2J\n"
            "        do this\n");
}

TEST(Errors, AreWrappedOnATerminal) {
  Screen terminal;
  terminal.terminal = true;
  terminal.width = 24;
  EXPECT_EQ(render_error(Error{ErrorCode::failed, "one two three four five", "", {}}, terminal),
            "gpumod: one two three\n"
            "        four five\n");
}

TEST(Modes, TheActiveOneIsMarked) {
  EXPECT_EQ(render_mode_list(json::parse(R"({"modes":[{"id":"blank","name":"blank","services":[],"active":false},
      {"id":"rag","name":"Retrieval","services":["chat","embedding"],"active":true}]})"),
                             {}),
            "   MODE   SERVICES         NAME\n"
            "   blank  (nothing runs)\n"
            "●  rag    chat, embedding  Retrieval\n");
}

TEST(Services, ShowLeavesOutWhatIsNotSaid) {
  EXPECT_EQ(
      render_service(
          json::parse(
              R"({"service":{"id":"chat","state":"running","vram":1048576,"router":null,"detail":"","stop_timeout":20.0,
      "extra_args":["--a","b"],"model":{"id":"","path":"/m.gguf"}}})"),
          {}),
      "id            chat\n"
      "state         ● running\n"
      "vram          1 MiB\n"
      "stop timeout  20 s\n"
      "extra args    --a, b\n"
      "model         path /m.gguf\n");
}

TEST(Services, MemoryIsShownBySourceSideBySide) {
  EXPECT_EQ(render_service(json::parse(R"({"service":{"id":"chat","memory":{"declared":15728640000,
      "estimated":null,"not_estimated":"--mmproj is not covered",
      "measured":[{"gpu":"A card","peak":23592960000,"runs":3,
                   "seconds":{"start":{"median":0.2,"spread":0},"ready":{"median":31,"spread":1.5}}}],
      "claims":[{"gpu":0,"name":"A card","bytes":23181918208,"source":"utilization"}],
      "warnings":["15000 MiB are declared"]}}})"),
                           {}),
            "id  chat\n"
            "\n"
            "MEMORY   DECLARED  ESTIMATED   MEASURED    CLAIMED\n"
            "GPU 0   15000 MiB          -  22500 MiB  22108 MiB  utilization\n"
            "times:    start 0.2 s, ready 31 s (±1.5 s)\n"
            "          not estimated: --mmproj is not covered\n"
            "warning:  15000 MiB are declared\n");
}

TEST(Services, WhatWasForgottenIsSaid) {
  EXPECT_EQ(render("service forget", json::parse(R"({"forgotten":{"service":"chat","runs":3}})"), {}),
            "What 3 runs of chat had shown is forgotten.\n");
  EXPECT_EQ(render("service forget", json::parse(R"({"forgotten":{"service":"chat","runs":0}})"), {}),
            "Nothing had been measured of chat.\n");
}

TEST(Anything, ChangedFilesAreOneLine) {
  EXPECT_EQ(render("mode create", json::parse(R"({"created":{"mode":"rag","file":"/c/modes/rag.yaml"}})"), {}),
            "created rag (/c/modes/rag.yaml)\n");
}

TEST(Anything, AnUnknownAnswerIsStillShown) {
  EXPECT_EQ(render("future verb", json::parse(R"({"a":1,"b":{"c":"x"},"d":["e","f"]})"), {}),
            "a: 1\nb:\n  c: x\nd: e, f\n");
}

TEST(Init, ShowsWhatItFoundAndWhatItWouldWrite) {
  const auto text = render_init(
      json::parse(R"({"found":{"engines":[{"engine":"llamacpp","binary":"/opt/llama-server","version":"b1"}]},
      "files":[{"path":"/c/services/a.yaml","text":"id: a\n","exists":false},{"path":"/c/modes/m.yaml","text":"id: m\n","exists":true}],
      "written":[],"advice":["Say hello.","Add:\nengines:\n  x: y"]})"),
      {});
  EXPECT_THAT(text, HasSubstr("llamacpp  /opt/llama-server  b1\n"));
  EXPECT_THAT(text, HasSubstr("/c/services/a.yaml\n  id: a\n"));
  EXPECT_THAT(text, Not(HasSubstr("/c/modes/m.yaml"))) << "that it stays is advice, and is said once";
  EXPECT_THAT(text, Not(HasSubstr("id: m")));
  EXPECT_THAT(text, HasSubstr("Say hello.\nAdd:\nengines:\n  x: y\n"));
  EXPECT_THAT(render_init(json::parse("{}"), {}), HasSubstr("Nothing was found"));
  EXPECT_THAT(render_init(json::parse(R"({"found":{"engines":[],"models":[],"unit_manager":"local"}})"), {}),
              HasSubstr("Nothing was found"));
}

constexpr auto model_answer = R"({
  "model": {"name": "Qwen3 30B", "format": "gguf", "files": ["/m/a.gguf", "/m/b.gguf"], "bytes": 18874368000},
  "architecture": "qwen3moe", "parameters": 30532122624, "layers": 48, "context_length": 40960,
  "quantization": {"name": "Q4_K_M", "types": [
    {"type": "q4_K", "tensors": 300, "parameters": 30000000000, "bytes": 17825792000},
    {"type": "f32", "tensors": 241, "parameters": 12800, "bytes": 51200}]},
  "attention": {"heads": 32, "kv_heads": [4, 4, 2], "sliding_window": 1024, "sliding_layers": 40, "shared_layers": 0, "latent": null},
  "state": null, "experts": {"count": 128, "used": 8}, "prediction_layers": 0,
  "tokenizer": {"model": "gpt2", "pre": "qwen2", "vocabulary": 151936}, "tensors": 541,
  "vram": {"source": "arithmetic", "gpus": [{"weights": 17825792000, "kv": 4026531840, "compute": 314572800, "context": 471859200, "total": 22638755840}],
    "host": {"weights": 1048576000, "kv": 0}, "assumptions": ["every layer on the GPU", "flash attention on"]}})";

TEST(Model, ShowsWhatItIsAndWhatItTakes) {
  EXPECT_EQ(render("model inspect", json::parse(model_answer), {}),
            "Qwen3 30B, qwen3moe, Q4_K_M\n"
            "file        /m/a.gguf and 1 more\n"
            "size        18000 MiB\n"
            "parameters  30.5 B\n"
            "layers      48\n"
            "context     40960\n"
            "attention   32 heads, 2 to 4 for keys; 40 layers see 1024 tokens\n"
            "experts     8 of 128\n"
            "tokenizer   gpt2, qwen2, 151936 tokens\n"
            "\n"
            "TYPE  TENSORS  PARAMETERS       SIZE\n"
            "q4_K      300      30.0 B  17000 MiB\n"
            "f32       241      12.8 K      0 MiB\n"
            "\n"
            "VRAM\n"
            "weights               17000 MiB\n"
            "keys, values, states   3840 MiB\n"
            "computation (about)     300 MiB\n"
            "CUDA (about)            450 MiB\n"
            "together              21590 MiB\n"
            "and in host memory: 1000 MiB of weights\n"
            "\n"
            "By arithmetic:\n"
            "- every layer on the GPU\n"
            "- flash attention on\n");
}

TEST(Model, WithoutWeightsShowsNoZeros) {
  EXPECT_EQ(render("model inspect",
                   json::parse(R"({"model": {"files": ["/m/v.gguf"], "bytes": 1048576}, "architecture": "llama",
    "parameters": 0, "layers": 0, "tokenizer": {"model": "gpt2", "vocabulary": 3}, "tensors": 0, "vram": null,
    "notes": ["This file holds a vocabulary and no weights."]})"),
                   {}),
            "llama\n"
            "file       /m/v.gguf\n"
            "size       1 MiB\n"
            "tokenizer  gpt2, 3 tokens\n"
            "\n"
            "! This file holds a vocabulary and no weights.\n");
}

TEST(Model, OfVllmSaysWhetherItFitsInsideTheClaim) {
  auto answer =
      json::parse(R"({"model": {"name": "x"}, "tensors": [{"name": "a", "type": "BF16", "shape": [2, 3], "bytes": 12}],
    "vram": {"source": "arithmetic", "gpus": [{"weights": 0}, {"weights": 1048576}], "claim": 23181918208, "fits": false}})");
  const auto text = render("model inspect", answer, {});
  EXPECT_THAT(text, HasSubstr("vLLM claims 22108 MiB: it does not fit in there\n"));
  EXPECT_THAT(text, HasSubstr("a       BF16  2 x 3     12\n"));
  EXPECT_THAT(text, HasSubstr("GPU 1"));
  answer.at("vram").as_object()["fits"] = true;
  EXPECT_THAT(render("model inspect", answer, {}), HasSubstr("it fits in there"));
}

Screen plain_screen(int width) {
  Screen screen;
  screen.unicode = false;
  screen.width = width;
  return screen;
}

json::value simulated(bool visual) {
  auto answer = json::parse(R"({"simulation": {"to": "code", "services": ["coder"], "fits": false,
    "problem": "service 'coder' needs 20000 MiB", "missing": 2483027968, "margin": 536870912,
    "gpus": [{"gpu": 0, "name": "RTX 4090", "total": 25757220864, "free_now": 12582912000, "free_after": -1946157056,
              "lowest": {"free": -1946157056, "moment": 3}}],
    "claims": [{"service": "coder", "bytes": 20971520000, "source": "estimated"}],
    "timeline": [
      {"edge": "now", "step": null, "gpus": [{"gpu": 0, "free": 12582912000,
        "held": [{"name": "chat", "bytes": 6442450944}, {"name": null, "bytes": 6731857920}]}]},
      {"edge": "begins", "step": 0, "action": "stop", "subject": "chat", "gpus": [{"gpu": 0, "free": 12582912000,
        "held": [{"name": "chat", "bytes": 6442450944}, {"name": null, "bytes": 6731857920}]}]},
      {"edge": "ends", "step": 0, "action": "stop", "subject": "chat", "gpus": [{"gpu": 0, "free": 19025362944,
        "held": [{"name": null, "bytes": 6731857920}]}]},
      {"edge": "begins", "step": 1, "action": "start", "subject": "coder", "gpus": [{"gpu": 0, "free": -1946157056,
        "held": [{"name": "coder", "bytes": 20971520000}, {"name": null, "bytes": 6731857920}]}]},
      {"edge": "ends", "step": 1, "action": "start", "subject": "coder", "gpus": [{"gpu": 0, "free": -1946157056,
        "held": [{"name": "coder", "bytes": 20971520000}, {"name": null, "bytes": 6731857920}]}]}],
    "alternatives": [{"changes": [{"kind": "context", "service": "coder",
       "text": "give 'coder' 16384 tokens of context instead of 32768", "loses": "what is longer than 16384 tokens",
       "edit": "context_size: 16384"}], "loss": 45, "lowest": []}],
    "notes": ["one thing"]}})");
  if (visual) answer.as_object()["simulation"].as_object()["visual"] = true;
  return answer;
}

TEST(Render, ASimulationShowsEveryMomentAndWhatWouldFit) {
  const auto shown = render_simulation(simulated(false), plain_screen(80));
  EXPECT_THAT(shown, HasSubstr("code: does not fit: 2368 MiB are missing\n"));
  EXPECT_THAT(shown, HasSubstr("stop chat    18144 MiB"));
  EXPECT_THAT(shown, HasSubstr("start coder  -1856 MiB"));
  EXPECT_THAT(shown, HasSubstr("Counted with:\n  coder  20000 MiB  estimated from its model's file\n"));
  EXPECT_THAT(shown, HasSubstr("1. give 'coder' 16384 tokens of context instead of 32768\n"
                               "     you lose what is longer than 16384 tokens\n"
                               "     in the file of coder: context_size: 16384\n"));
  EXPECT_THAT(shown, HasSubstr("note: one thing"));
}

TEST(Render, ASimulationAsBarsIsNarrowEnoughAndPlain) {
  for (const int width : {42, 60, 80, 200}) {
    auto screen = plain_screen(width);
    screen.terminal = true;
    const auto shown = render_simulation(simulated(true), screen);
    int bars = 0;
    for (const auto line : split_lines(shown)) {
      EXPECT_LE(display_width(line), width) << line;
      for (const char c : line)
        EXPECT_TRUE(c >= ' ' && c < 0x7F) << line;
      if (line.find("coder") != std::string_view::npos && line.find("##") != std::string_view::npos) {
        ++bars;
        EXPECT_NE(line.find('!'), std::string_view::npos) << "it goes beyond the GPU's end: " << line;
      }
    }
    EXPECT_EQ(bars, 1) << shown;
  }
}

}  // namespace
}  // namespace gpumod::cli
