#include "verbs/unit_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"

namespace gpumod {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

UnitSpec spec_of(std::vector<std::string> argv) {
  UnitSpec spec;
  spec.name = "gpumod-chat.service";
  spec.tag = "chat";
  spec.description = "gpumod: Chat (llamacpp)";
  spec.argv = std::move(argv);
  spec.environment["HF_TOKEN"] = Secret("hf_secret");
  return spec;
}

std::string line_of(const std::string& text, std::string_view key) {
  for (const auto line : split_lines(text))
    if (line.starts_with(std::string(key) + "=")) return std::string(line.substr(key.size() + 1));
  return "(none)";
}

std::string exec_start(std::vector<std::string> argv) {
  const auto text = unit_file_text(spec_of(std::move(argv)), {}, {});
  return text ? line_of(*text, "ExecStart") : text.error().message;
}

TEST(UnitText, HasWhatATransientUnitHas) {
  auto spec = spec_of({"/usr/bin/llama-server", "--port", "7070"});
  spec.working_directory = "/home/u/my 100% dir";
  spec.stop_argv = {"/usr/bin/stop", "it"};
  spec.stop_timeout = 1500ms;
  const auto text = unit_file_text(spec, "/state/units/gpumod-chat.service.env", {"a remark"});
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(line_of(*text, "Type"), "exec");
  EXPECT_EQ(line_of(*text, "ExecStart"), ":/usr/bin/llama-server --port 7070");
  EXPECT_EQ(line_of(*text, "ExecStop"), ":/usr/bin/stop it");
  EXPECT_EQ(line_of(*text, "WorkingDirectory"), "/home/u/my 100%% dir");
  EXPECT_EQ(line_of(*text, "Environment"), "GPUMOD_SERVICE=chat");
  EXPECT_EQ(line_of(*text, "EnvironmentFile"), "/state/units/gpumod-chat.service.env");
  EXPECT_EQ(line_of(*text, "TimeoutStopSec"), "1500ms");
  EXPECT_EQ(line_of(*text, "KillMode"), "control-group");
  EXPECT_EQ(line_of(*text, "Restart"), "no");
  EXPECT_EQ(line_of(*text, "SyslogIdentifier"), "gpumod-chat");
  EXPECT_EQ(line_of(*text, "WantedBy"), "default.target");
  EXPECT_THAT(*text, HasSubstr("# a remark\n"));
  EXPECT_THAT(*text, Not(HasSubstr("hf_secret")));
  EXPECT_EQ(authorship_of(*text), Authorship::ours);
}

TEST(UnitText, QuotesWhatSystemdWouldReadOtherwise) {
  EXPECT_EQ(exec_start({"/bin/x", "a b"}), ":/bin/x \"a b\"");
  EXPECT_EQ(exec_start({"/bin/x", ""}), ":/bin/x \"\"");
  EXPECT_EQ(exec_start({"/bin/x", "50%"}), ":/bin/x 50%%");
  EXPECT_EQ(exec_start({"/bin/x", "$HOME"}), ":/bin/x $HOME");  // the ':' keeps it
  EXPECT_EQ(exec_start({"/bin/x", "say \"hi\""}), ":/bin/x \"say \\\"hi\\\"\"");
  EXPECT_EQ(exec_start({"/bin/x", "back\\slash"}), ":/bin/x \"back\\\\slash\"");
  EXPECT_EQ(exec_start({"/bin/x", "two\nlines"}), ":/bin/x \"two\\nlines\"");
  EXPECT_EQ(exec_start({"/bin/x", ";"}), ":/bin/x \";\"");
  EXPECT_EQ(exec_start({"/bin/x", "it's"}), ":/bin/x \"it's\"");
  EXPECT_EQ(exec_start({"/opt/my tools/x"}), "\":/opt/my tools/x\"");
}

TEST(UnitText, EveryArgumentComesBackAsItWas) {
  const std::vector<std::string> argv{"/opt/100% tools/x",
                                      "",
                                      " ",
                                      "a b",
                                      "%h",
                                      "%%",
                                      "$HOME",
                                      "${PORT}",
                                      "$$",
                                      "'",
                                      "\"",
                                      "\\",
                                      "\\n",
                                      "tab\there",
                                      "line\nbreak",
                                      ";",
                                      "#",
                                      "-x",
                                      "{\"a\": \"b c\"}",
                                      "\x01",
                                      "é 漢字",
                                      "trailing\\",
                                      "~",
                                      "*"};
  const auto text = unit_file_text(spec_of(argv), {}, {});
  ASSERT_TRUE(text) << text.error().message;
  const auto values = unit_file_values(*text, "Service", "ExecStart");
  ASSERT_EQ(values.size(), 1U);
  EXPECT_EQ(command_words(values[0], "/home/u"), argv);
}

TEST(UnitText, RefusesWhatAUnitFileCannotCarry) {
  EXPECT_FALSE(unit_file_text(spec_of({"/opt/a\"b/x"}), {}, {}));
  EXPECT_FALSE(unit_file_text(spec_of({"/opt/a\\b/x"}), {}, {}));
  EXPECT_FALSE(unit_file_text(spec_of({"relative"}), {}, {}));
  EXPECT_FALSE(unit_file_text(spec_of({"/bin/x", "\xFF"}), {}, {}));
  EXPECT_FALSE(unit_file_text(spec_of({"/bin/x"}), "/a\nb.env", {}));
  auto spec = spec_of({"/bin/x"});
  spec.working_directory = "/a\nExecStart=/bin/evil";
  EXPECT_FALSE(unit_file_text(spec, {}, {}));
}

TEST(UnitText, ADescriptionStaysInItsLine) {
  auto spec = spec_of({"/bin/x"});
  spec.description = "50%\nExecStartPre=/bin/evil \\";
  const auto text = unit_file_text(spec, {}, {});
  ASSERT_TRUE(text);
  EXPECT_THAT(unit_file_values(*text, "Service", "ExecStartPre"), IsEmpty());
  EXPECT_THAT(line_of(*text, "Description"), HasSubstr("50%%"));
  EXPECT_THAT(unit_file_values(*text, "Service", "Type"), ElementsAre("exec"));
}

TEST(UnitText, AnEditIsNoticed) {
  auto text = *unit_file_text(spec_of({"/bin/x"}), {}, {});
  auto edited = text;
  edited.replace(edited.find("Restart=no"), 10, "Restart=on");
  EXPECT_EQ(authorship_of(edited), Authorship::edited);
  EXPECT_EQ(authorship_of(text + "\n"), Authorship::edited);
  EXPECT_EQ(authorship_of(text.substr(text.find('\n') + 1)), Authorship::foreign);
  EXPECT_EQ(authorship_of("[Service]\nExecStart=/bin/x\n"), Authorship::foreign);
  EXPECT_EQ(authorship_of(""), Authorship::foreign);
}

TEST(UnitText, ReadsPeoplesUnits) {
  const char* text =
      "; a comment\n[Unit]\nExecStart=/not/this\n[Service]\nExecStart=/old\nExecStart=\n"
      "ExecStart=-/usr/bin/env vllm serve \\\n  # in between\n  'Qwen/Qwen3 8B' --port=$$8000 \\\n  --dir %h/x --pct "
      "5%%\n";
  const auto values = unit_file_values(text, "Service", "ExecStart");
  ASSERT_EQ(values.size(), 1U);
  EXPECT_THAT(command_words(values[0], "/home/u"), ElementsAre("/usr/bin/env", "vllm", "serve", "Qwen/Qwen3 8B",
                                                               "--port=$8000", "--dir", "/home/u/x", "--pct", "5%"));
  EXPECT_THAT(unit_file_values(text, "Service", "User"), IsEmpty());
  EXPECT_THAT(command_words("/bin/a x ; /bin/b", "/"), ElementsAre("/bin/a", "x"));
  EXPECT_THAT(command_words("/bin/a 'open", "/"), ElementsAre("/bin/a"));
}

}  // namespace
}  // namespace gpumod
