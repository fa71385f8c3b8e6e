#include "faces/cli/doctor.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

json::value answer() {
  return json::parse(R"json({"state":"failure","seconds":0.2,"checks":[
    {"id":"gpu.driver","group":"GPU","title":"Driver","state":"failure","why":"Nothing starts without it.",
     "findings":[{"state":"failure","text":"it hangs","mend":"sudo dmesg | grep NVRM"},
                 {"state":"ok","text":"it was there","mend":null}]},
    {"id":"gpu.persistence","group":"GPU","title":"Persistence mode","state":"skipped","why":"Starts wait.",
     "findings":[{"state":"skipped","text":"no answer","mend":null}]},
    {"id":"units.linger","group":"Units","title":"Lingering","state":"warning","why":"They would end.",
     "findings":[{"state":"warning","text":"off for ann","mend":"loginctl enable-linger"},
                 {"state":"warning","text":"and for bob","mend":null}]},
    {"id":"memory.guards","group":"Memory","title":"Guards","state":"note","why":"So so.",
     "findings":[{"state":"note","text":"worth a word","mend":null}]},
    {"id":"runs.orphans","group":"What runs","title":"Orphans","state":"ok","why":"They hold memory.",
     "findings":[{"state":"ok","text":"none","mend":null}]}],
    "fixes":[{"check":"units.linger","text":"let the services of ann run without a login (linger)"}],"fixed":[]
})json");
}

TEST(RenderDoctor, ListsInGroupsAndExplainsTheWorstLast) {
  EXPECT_EQ(render_doctor(answer(), Screen()), R"(GPU
  ✘ Driver            it hangs
  - Persistence mode  not looked at: no answer
Units
  ◐ Lingering         off for ann (and 1 more)
Memory
  · Guards            worth a word
What runs
  ✔ Orphans           none

· Guards: worth a word

◐ Lingering: off for ann
    They would end.
    → loginctl enable-linger
◐ Lingering: and for bob

✘ Driver: it hangs
    Nothing starts without it.
    → sudo dmesg | grep NVRM

1 failure, 1 warning, 1 note; 1 in order, 1 not looked at.
)");
}

TEST(RenderDoctor, SaysWhatWasMended) {
  auto mended = answer();
  mended.as_object()["fixed"] = json::array{json::object{{"text", "make it"}, {"done", true}, {"problem", nullptr}},
                                            json::object{{"text", "set it"}, {"done", false}, {"problem", "no"}}};
  const auto out = render_doctor(mended, Screen());
  EXPECT_THAT(out, HasSubstr("Mended\n✔ make it\n✘ set it: no\n"));
}

TEST(RenderDoctor, ALineOfTheListFitsTheScreen) {
  Screen narrow;
  narrow.terminal = true;
  narrow.width = 60;
  auto longer = answer();
  auto& finding = longer.as_object()["checks"].as_array()[0].as_object()["findings"].as_array()[0].as_object();
  finding["text"] = "a very long story about a driver that hangs since yesterday at noon";
  const auto out = render_doctor(longer, narrow);
  EXPECT_THAT(out, HasSubstr("  ✘ Driver            a very long story about a driver tha"));
  EXPECT_THAT(out.substr(0, out.find("Units")), HasSubstr("…"));
}

TEST(RenderDoctor, WhatItSaysCannotDriveTheTerminal) {
  auto evil = answer();
  evil.as_object()["checks"].as_array()[0].as_object()["findings"].as_array()[0].as_object()["mend"] = "\x1b[2J";
  EXPECT_THAT(render_doctor(evil, Screen()), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace gpumod::cli
