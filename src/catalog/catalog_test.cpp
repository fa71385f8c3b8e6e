// Whole directories: what files say of each other, and files that are no files.
#include "catalog/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/text.h"
#include "catalog/test_folder.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using testing::Folder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::lines_of;
using ::testing::Not;
using ::testing::StartsWith;
namespace fs = std::filesystem;

std::string command(int port = 0) {
  return fmt::format("engine: command\ncmd: run\nport: {}\n", port);
}
std::string routed(int port, const std::string& more = {}) {
  return fmt::format("engine: llamacpp\nrouter: r\nport: {}\nmodels_dir: /m\nmodel: x\n{}", port, more);
}

TEST(LoadCatalog, no_directory_is_an_empty_catalogue) {
  Folder folder;
  fs::remove(folder.paths.config);
  const auto catalog = folder.load();
  EXPECT_TRUE(catalog.services.empty());
  EXPECT_TRUE(catalog.problems.empty());
}

TEST(LoadCatalog, a_file_in_place_of_the_directory_is_an_environment_error) {
  Folder folder;
  folder.write("x", "");
  folder.paths.config /= "x";
  const auto catalog = load_catalog(folder.paths);
  ASSERT_FALSE(catalog);
  EXPECT_EQ(catalog.error().code, ErrorCode::environment);
}

TEST(LoadCatalog, broken_files_take_nothing_else_down) {
  Folder folder;
  folder.write("services/good.yaml", command());
  folder.write("modes/good.yaml", "services: [good]\n");
  folder.write("services/syntax.yaml", "a: [1\n");
  folder.write("services/bytes.yaml", "a: \xFF\n");
  folder.write("services/empty.yaml", "");
  folder.write("services/scalar.yaml", "42\n");
  folder.write("services/huge.yaml", std::string(10 * 1024 * 1024, '#'));
  folder.write("services/two.yaml", "a: 1\n---\nb: 1\n");
  folder.write("services/twice.yaml", command() + "cmd: other\n");
  folder.write("services/.swap.yaml", "a: [1\n");
  folder.write("services/note.txt", "a: [1\n");
  fs::create_directory(folder.paths.config / "services/folder.yaml");
  fs::create_symlink("nowhere", folder.paths.config / "services/link.yaml");
  ASSERT_EQ(::mkfifo((folder.paths.config / "services/pipe.yaml").c_str(), 0600), 0);
  const auto catalog = folder.load();
  EXPECT_EQ(catalog.services.size(), 1u);
  EXPECT_EQ(catalog.modes.size(), 1u);
  EXPECT_THAT(catalog.broken_services,
              ElementsAre("bytes", "empty", "folder", "huge", "link", "pipe", "scalar", "syntax", "twice", "two"));
  EXPECT_THAT(lines_of(catalog.problems),
              ElementsAre(StartsWith("services/bytes.yaml:1:4: error: the file is not UTF-8: byte 0xFF"),
                          StartsWith("services/empty.yaml:1:1: error: the file is empty"),
                          StartsWith("services/folder.yaml: error: this is a folder, not a file"),
                          StartsWith("services/huge.yaml: error: the file is larger than 1024 KiB"),
                          StartsWith("services/link.yaml: error: the link leads nowhere"),
                          StartsWith("services/pipe.yaml: error: this is not a regular file"),
                          StartsWith("services/scalar.yaml:1:1: error: expected a service"),
                          StartsWith("services/syntax.yaml:2:1: error: this is not valid YAML"),
                          StartsWith("services/twice.yaml:4:1: error: the key 'cmd' stands twice"),
                          StartsWith("services/two.yaml:2:1: error: a second document begins here")));
}

/// Root reads everything; as long as this lives, the effective user is nobody then.
class NotRoot {
 public:
  NotRoot() {
    if (was_root_ && ::seteuid(65534) != 0) std::abort();
  }
  ~NotRoot() {
    if (was_root_ && ::seteuid(0) != 0) std::abort();
  }
  NotRoot(const NotRoot&) = delete;
  NotRoot& operator=(const NotRoot&) = delete;

 private:
  bool was_root_ = ::geteuid() == 0;
};

TEST(LoadCatalog, an_unreadable_file_is_a_problem) {
  Folder folder;
  fs::permissions(folder.write("services/locked.yaml", command()), fs::perms::none);
  folder.let_others_in();
  const Catalog catalog = [&] {
    const NotRoot not_root;
    return folder.load();
  }();
  EXPECT_THAT(lines_of(catalog.problems),
              ElementsAre(StartsWith("services/locked.yaml: error: the file cannot be read")));
  EXPECT_TRUE(catalog.broken_services.contains("locked"));
}

TEST(LoadCatalog, presets_are_searched_and_loops_end) {
  Folder folder;
  folder.write("presets/a/b/deep.yml", command());
  folder.write("services/sub/not_read.yaml", command());
  fs::create_directory_symlink("..", folder.paths.config / "presets/a/loop");
  const auto catalog = folder.load();
  EXPECT_THAT(lines_of(catalog.problems), IsEmpty());
  EXPECT_EQ(catalog.services.size(), 1u);
  EXPECT_EQ(catalog.services.at("deep").source.file, "presets/a/b/deep.yml");
}

TEST(LoadCatalog, the_first_of_two_ids_stands) {
  Folder folder;
  folder.write("presets/a.yaml", "id: chat\n" + command(1));
  folder.write("services/b.yaml", "# ours\nid: chat\n" + command(2));
  folder.write("services/c.yaml", command(3) + "id: chat\n");
  folder.write("modes/m1.yaml", "id: m\nservices: []\n");
  folder.write("modes/m2.yaml", "services: []\nid: m\n");
  const auto catalog = folder.load();
  EXPECT_EQ(catalog.services.at("chat").port, 2);
  EXPECT_EQ(catalog.modes.at("m").source.file, "modes/m1.yaml");
  EXPECT_THAT(
      lines_of(catalog.problems),
      ElementsAre(
          "modes/m2.yaml:2:5: error: the mode 'm' is already defined. It stands at modes/m1.yaml:1:5, and that one "
          "is used. Rename or remove one of them.",
          "presets/a.yaml:1:5: error: the service 'chat' is already defined. It stands at services/b.yaml:2:5, "
          "and that one is used. Rename or remove one of them.",
          "services/c.yaml:4:5: error: the service 'chat' is already defined. It stands at services/b.yaml:2:5, "
          "and that one is used. Rename or remove one of them."));
}

TEST(LoadCatalog, a_broken_file_does_not_take_its_id_away_from_a_sound_one) {
  Folder folder;
  folder.write("services/a.yaml", "id: chat\nengine: nope\n");
  folder.write("services/b.yaml", "id: chat\n" + command());
  const auto catalog = folder.load();
  EXPECT_EQ(catalog.services.at("chat").source.file, "services/b.yaml");
  EXPECT_FALSE(catalog.broken_services.contains("chat"));
  EXPECT_EQ(catalog.problems.size(), 1u);
}

TEST(LoadCatalog, members_of_a_router_agree) {
  for (const auto& [more, place] :
       {std::pair(std::string("host: localhost\n"), "6:7: error: host differs from that of 'a'"),
        std::pair(std::string("binary: /b\n"), "6:9: error: binary differs"),
        std::pair(std::string("gpu: 1\n"), "6:6: error: gpu differs"),
        std::pair(std::string("unit: u.service\n"), "6:7: error: unit differs")}) {
    Folder folder;
    folder.write("services/a.yaml", routed(7070));
    folder.write("services/b.yaml", routed(7070, more));
    const auto catalog = folder.load();
    EXPECT_THAT(lines_of(catalog.problems), ElementsAre(StartsWith(std::string("services/b.yaml:") + place))) << more;
    EXPECT_TRUE(catalog.services.contains("a"));
    EXPECT_TRUE(catalog.broken_services.contains("b"));
  }
  Folder folder;
  folder.write("services/a.yaml", routed(7070));
  folder.write("services/b.yaml", routed(7071));
  folder.write("services/c.yaml", routed(7070, "extra_args: --x\n"));
  EXPECT_THAT(lines_of(folder.load().problems),
              ElementsAre(StartsWith("services/b.yaml:3:7: error: port differs from that of 'a'")));
  EXPECT_EQ(folder.load().services_of_unit("gpumod-router-r.service").size(), 2u);
}

TEST(LoadCatalog, what_a_server_gets_beside_its_own) {
  Folder folder;
  folder.write("gpumod.yaml", "engines:\n  llamacpp:\n    extra_args: --fit off\n    env: {A: engine, B: engine}\n");
  folder.write("services/a.yaml", routed(7070, "extra_args: -np 1\n"));
  folder.write("services/b.yaml", routed(7070, "extra_args: -ub 256\nenv: {B: b}\n"));
  folder.write("services/mine.yaml", "engine: llamacpp\nport: 7071\nmodel: /m/x.gguf\nunit: mine.service\n");
  const auto catalog = folder.load();
  const auto& a = catalog.services.at("a");
  EXPECT_THAT(a.added_words(), ElementsAre("--fit", "off", "-ub", "256", "-np", "1"));
  ASSERT_TRUE(a.variable("A") && a.variable("B"));
  EXPECT_EQ(a.variable("A")->reveal(), "engine");
  EXPECT_EQ(a.variable("B")->reveal(), "b") << "the router has one environment";
  EXPECT_EQ(a.variable("C"), nullptr);
  EXPECT_THAT(catalog.services.at("mine").added_words(), IsEmpty()) << "its command line is people's own";
}

TEST(LoadCatalog, a_unit_runs_one_service) {
  Folder folder;
  folder.write("services/a.yaml", "engine: command\nunit: mine.service\n");
  folder.write("services/b.yaml", "engine: command\nunit: mine.service\n");
  folder.write("services/c.yaml", routed(7070));
  folder.write("services/router-r.yaml", command());
  EXPECT_THAT(
      lines_of(folder.load().problems),
      ElementsAre(
          StartsWith("services/b.yaml:2:7: error: the unit mine.service already runs the service 'a'"),
          StartsWith(
              "services/router-r.yaml:1:1: error: the unit gpumod-router-r.service already runs the service 'c'")));
}

TEST(LoadCatalog, modes_are_checked_against_services) {
  Folder folder;
  folder.write("services/chat.yaml", command(7070));
  folder.write("services/coder.yaml", command(7070));
  folder.write("services/wide.yaml", command(7070) + "host: 0.0.0.0\n");
  folder.write("services/other.yaml", command(7071));
  folder.write("services/r1.yaml", routed(7072));
  folder.write("services/r2.yaml", routed(7072));
  folder.write("services/sick.yaml", "engine: command\ncmd: run\nprot: 1\n");
  folder.write("services/local.yaml", command(7071) + "host: localhost\n");
  folder.write("modes/good.yaml", "services: [chat, other, r1, r2]\n");
  folder.write("modes/port.yaml", "services:\n  - chat\n  - coder\n");
  folder.write("modes/wild.yaml", "services: [chat, wide]\n");
  folder.write("modes/names.yaml", "services: [other, local]\n");
  folder.write("modes/missing.yaml", "services: [chta]\n");
  folder.write("modes/sick.yaml", "services: [sick, chat]\n");
  folder.write("modes/twice.yaml", "services: [chat, chat]\n");
  const auto catalog = folder.load();
  EXPECT_EQ(catalog.modes.size(), 1u);
  EXPECT_TRUE(catalog.modes.contains("good"));
  EXPECT_THAT(catalog.broken_modes, ElementsAre("missing", "names", "port", "sick", "twice", "wild"));
  EXPECT_THAT(
      lines_of(catalog.problems),
      ElementsAre("modes/missing.yaml:1:12: error: there is no service 'chta'. Did you mean 'chat'?",
                  StartsWith("modes/names.yaml:1:19: error: 'other' and 'local' both listen on port 7071"),
                  StartsWith("modes/port.yaml:3:5: error: 'chat' and 'coder' both listen on port 7070"),
                  "modes/sick.yaml:1:12: error: the service 'sick' cannot be used: its file is broken. Mend it first: "
                  "services/sick.yaml:3:1.",
                  StartsWith("modes/twice.yaml:1:18: error: the service 'chat' is listed twice"),
                  StartsWith("modes/wild.yaml:1:18: error: 'chat' and 'wide' both listen on port 7070"),
                  "services/sick.yaml:3:1: error: unknown key 'prot'. Did you mean 'port' or 'probe'?",
                  StartsWith("services/wide.yaml:4:7: warning: listening on 0.0.0.0")));
}

TEST(LoadCatalog, lookups_of_a_broken_file_say_each_problem_once) {
  Folder folder;
  folder.write("modes/m1.yaml", "services: [nobody]\nwhat: 1\nwho: 2\n");
  const auto mode = folder.load().mode("m1");
  ASSERT_FALSE(mode);
  const auto first = mode.error().message.substr(mode.error().message.find("modes/"));
  EXPECT_THAT(mode.error().hint, HasSubstr("modes/m1.yaml:"));
  EXPECT_THAT(mode.error().hint, Not(HasSubstr(first)));
}

TEST(LoadCatalog, lookups_tell_missing_from_broken) {
  Folder folder;
  folder.write("services/chat.yaml", command());
  folder.write("services/sick.yaml", "engine: nope\n");
  folder.write("modes/code.yaml", "services: [chat]\n");
  folder.write("modes/ill.yaml", "services: [sick]\n");
  const auto catalog = folder.load();
  EXPECT_EQ((*catalog.service("chat"))->id, "chat");
  EXPECT_EQ((*catalog.mode("code"))->id, "code");
  EXPECT_EQ(catalog.service("cht").error().code, ErrorCode::not_found);
  EXPECT_EQ(catalog.service("cht").error().hint, "Did you mean 'chat'?");
  EXPECT_EQ(catalog.mode("cod").error().hint, "Did you mean 'code'?");
  EXPECT_EQ(catalog.service("sick").error().code, ErrorCode::configuration);
  EXPECT_THAT(catalog.service("sick").error().message, HasSubstr("services/sick.yaml:1:9: error"));
  EXPECT_EQ(catalog.mode("ill").error().code, ErrorCode::configuration);
  EXPECT_TRUE(catalog.has_errors());
  EXPECT_EQ(catalog.services_of_unit("gpumod-chat.service").front()->id, "chat");
  EXPECT_THAT(catalog.services_of_unit("other.service"), IsEmpty());
}

TEST(LoadCatalog, secrets_come_from_files_and_are_never_shown) {
  Folder folder;
  folder.write("gpumod.yaml", "variables: {DIR: /data, KEY: settings}\n");
  const auto secret = folder.write("keys.env", "KEY=hunter2\nNAME=x\n");
  folder.write("open.env", "A=1\n", false);
  folder.write("bad.env", "KEY=hunter2\nhunter2\n");
  folder.write("services/a.yaml", command() + "env_file: keys.env\nenv: {NAME: 'own', BOTH: '$DIR/$KEY'}\n");
  folder.write("services/b.yaml", "engine: command\ncmd: [run, --key, $KEY]\nenv_file: [keys.env, open.env]\n");
  folder.write("services/c.yaml", command() + "env_file: bad.env\n");
  folder.write("services/d.yaml", command() + "env_file: none.env\n");
  folder.write("services/e.yaml", command() + "extra_args: $KEY\n");
  const auto catalog = folder.load();
  const auto& environment = catalog.services.at("a").environment;
  EXPECT_EQ(environment.at("KEY").reveal(), "hunter2");
  EXPECT_EQ(environment.at("NAME").reveal(), "own");
  EXPECT_EQ(environment.at("BOTH").reveal(), "/data/hunter2");
  EXPECT_THAT(catalog.services.at("b").command()->cmd, ElementsAre("run", "--key", "hunter2"));
  EXPECT_THAT(catalog.services.at("e").extra_args, ElementsAre("settings"));
  const auto lines = lines_of(catalog.problems);
  EXPECT_THAT(
      lines,
      ElementsAre(HasSubstr("services/b.yaml:2:19: warning: the value of $KEY from env_file becomes an argument"),
                  HasSubstr("services/b.yaml:3:22: warning: " + (folder.paths.config / "open.env").string() +
                            " can be read by"),
                  HasSubstr("services/c.yaml:4:11: error: " + (folder.paths.config / "bad.env").string() +
                            ", line 2: expected NAME=VALUE"),
                  HasSubstr("services/d.yaml:4:11: error: the environment file cannot be read")));
  EXPECT_THAT(catalog.open_env_files, ElementsAre(folder.paths.config / "open.env"));
  for (const auto& line : lines)
    EXPECT_EQ(line.find("hunter2"), std::string::npos) << line;
}

TEST(LoadCatalog, it_says_which_values_are_secret) {
  Folder folder;
  folder.write("gpumod.yaml",
               "variables: {PLACE: nowhere, DB_PASSWORD: of-settings}\n"
               "engines: {vllm: {env: {API_KEY: of-engine}}, llamacpp: {extra_args: [--api-key, of-args]}}\n");
  folder.write("keys.env",
               "ANY=of-file\nHF_HOME=/data/hf\nAPI_KEY=/begins-like-a-path\nLIST=a,b\n"
               "LLAMA_API_KEY=first,second\n");
  folder.write("services/a.yaml",
               command() + "env_file: keys.env\nenv: {ANY: own, HF_TOKEN: of-service, MAX_TOKENS: '5'}\n");
  folder.write("services/b.yaml",
               "engine: command\ncmd: [run, --hf-token=of-cmd, DB_PASSWORD=of-env, --env=DB_PASSWORD=of-both, "
               "--api-key-file, f]\nnonsense: 1\n");
  EXPECT_THAT(folder.load().secrets,
              ElementsAre("/begins-like-a-path", "a,b", "first", "first,second", "of-args", "of-both", "of-cmd",
                          "of-engine", "of-env", "of-file", "of-service", "of-settings", "second"));
}

TEST(ModeText, what_create_writes_can_be_read) {
  Catalog catalog = read_catalog_text(FileKind::service, "services/chat.yaml", command());
  Mode mode;
  mode.id = "odd";
  mode.name = "A \"name\": # with \\ signs";
  mode.description = "Two\nlines, é";
  mode.services = {"chat"};
  mode.on_failure = OnFailure::stay;
  const auto text = new_mode_text(mode);
  EXPECT_THAT(lines_of(check_mode_text(catalog, "odd.yaml", text)), IsEmpty());
  Folder folder;
  folder.write("services/chat.yaml", command());
  folder.write("modes/odd.yaml", text);
  const auto read = folder.load();
  ASSERT_TRUE(read.modes.contains("odd"));
  const auto& back = read.modes.at("odd");
  EXPECT_EQ(back.name, mode.name);
  EXPECT_EQ(back.description, mode.description);
  EXPECT_EQ(back.services, mode.services);
  EXPECT_EQ(back.on_failure, OnFailure::stay);
  EXPECT_EQ(path_of(folder.paths, back.source), folder.paths.config / "modes/odd.yaml");
  mode.services.clear();
  EXPECT_THAT(lines_of(check_mode_text(catalog, "odd.yaml", new_mode_text(mode))), IsEmpty());
}

TEST(ModeText, is_checked_against_the_catalogue) {
  Folder folder;
  folder.write("services/chat.yaml", command());
  folder.write("services/sick.yaml", "engine: nope\n");
  folder.write("modes/code.yaml", "services: [chat]\n");
  const auto catalog = folder.load();
  EXPECT_THAT(lines_of(check_mode_text(catalog, "code.yaml", "services: [chat]\n")), IsEmpty());
  EXPECT_THAT(lines_of(check_mode_text(catalog, "new.yaml", "id: code\nservices: [cht, sick]\n")),
              ElementsAre(StartsWith("modes/new.yaml:2:12: error: there is no service 'cht'"),
                          StartsWith("modes/new.yaml:2:17: error: the service 'sick' cannot be used"),
                          StartsWith("modes/new.yaml:1:5: error: the mode 'code' is already defined")));
  EXPECT_THAT(lines_of(check_mode_text(catalog, "code.yaml", "")),
              ElementsAre(StartsWith("modes/code.yaml:1:1: error: the file is empty")));
  EXPECT_THAT(lines_of(check_mode_text(catalog, "code.yaml", "services: [")),
              ElementsAre(StartsWith("modes/code.yaml:1:")));
}

}  // namespace
}  // namespace gpumod
