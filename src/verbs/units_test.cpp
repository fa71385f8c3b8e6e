// unit show everywhere, and what install and remove refuse before they touch anything. That systemd reads what we write
// is seen where a user manager runs: see tests/e2e.
#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/handlers.h"
#include "verbs/tree_testing.h"
#include "verbs/unit_text.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

class UnitsTest : public testing::Test {
 protected:
  UnitsTest() {
    tree_.program("home/bin/llama-server", "#!/bin/sh\n");
    tree_.write(
        "home/.config/gpumod/services/chat.yaml",
        fmt::format(
            "engine: llamacpp\nmodel: /m/a b.gguf\nport: 7070\nbinary: {}\nenv:\n  TOKEN: sesame\nstop_timeout: 7s\n",
            (tree_ / "home/bin/llama-server").string()));
    tree_.write("home/.config/gpumod/services/glm.yaml",
                "engine: llamacpp\nmodel: /m/glm.gguf\nport: 7071\nunit: glm-code.service\n");
  }
  Result<json::value> call(Answer (*handler)(Context&, Request), const std::string& service) {
    Loop loop;
    Context context(loop, tree_.paths(), {});
    return loop.run_until_done(handler(context, Request{{"service", service}}));
  }
  fs::path folder() const { return tree_ / "home/.config/systemd/user"; }

  TestTree tree_;
  ScopedVariable manager_{"GPUMOD_UNIT_MANAGER", "local"};
  ScopedVariable nvml_{"GPUMOD_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so"};
  ScopedVariable config_{"XDG_CONFIG_HOME", (tree_ / "home/.config").string()};
  ScopedVariable data_{"XDG_DATA_HOME", (tree_ / "home/.local/share").string()};
  ScopedVariable runtime_{"XDG_RUNTIME_DIR", (tree_ / "run").string()};
};

TEST_F(UnitsTest, ShowsTheUnitOfAServiceWithoutItsSecrets) {
  const auto answer = call(unit_show, "chat");
  ASSERT_TRUE(answer) << answer.error().message;
  const std::string text(answer->at("text").as_string());
  EXPECT_EQ(answer->at("unit").as_string(), "gpumod-chat.service");
  EXPECT_TRUE(answer->at("installed").is_null());
  EXPECT_THAT(text, HasSubstr("--model \"/m/a b.gguf\""));
  EXPECT_THAT(text, HasSubstr("Environment=GPUMOD_SERVICE=chat\n"));
  EXPECT_THAT(text, HasSubstr(fmt::format("EnvironmentFile={}\n",
                                          (tree_.paths().state / "units/gpumod-chat.service.env").string())));
  EXPECT_THAT(text, HasSubstr("TimeoutStopSec=7s\n"));
  EXPECT_THAT(text, Not(HasSubstr("sesame")));
  EXPECT_EQ(authorship_of(text), Authorship::ours);
  tree_.write("home/.config/systemd/user/gpumod-chat.service", text);
  EXPECT_EQ(call(unit_show, "chat")->at("installed").as_string(), (folder() / "gpumod-chat.service").c_str());
}

TEST_F(UnitsTest, ShowsAnAdoptedUnitAsItStands) {
  const auto missing = call(unit_show, "glm");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  tree_.write("home/.config/systemd/user/glm-code.service", "[Service]\nExecStart=/mine\n");
  const auto answer = call(unit_show, "glm");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->at("text").as_string(), "[Service]\nExecStart=/mine\n");
  EXPECT_EQ(answer->at("installed").as_string(), (folder() / "glm-code.service").c_str());
}

TEST_F(UnitsTest, ARoutersPresetLiesWhereARebootLeavesIt) {
  for (const auto& [id, context] : {std::pair("one", 1024), std::pair("two", 2048)})
    tree_.write(
        fmt::format("home/.config/gpumod/services/{}.yaml", id),
        fmt::format(
            "engine: llamacpp\nrouter: both\nmodels_dir: /m\nmodel: {}\nport: 7080\ncontext_size: {}\nbinary: {}\n", id,
            context, (tree_ / "home/bin/llama-server").string()));
  const auto answer = call(unit_show, "one");
  ASSERT_TRUE(answer) << answer.error().message;
  const std::string text(answer->at("text").as_string());
  EXPECT_THAT(text, HasSubstr(fmt::format("--models-preset {}",
                                          (tree_.paths().state / "units/gpumod-router-both.service.ini").string())));
  EXPECT_THAT(text, Not(HasSubstr(tree_.paths().runtime.string())));
  EXPECT_THAT(text, HasSubstr("one, two"));
}

TEST_F(UnitsTest, UnderTheLocalSupervisorNothingIsInstalled) {
  for (const auto handler : {unit_install, unit_remove}) {
    const auto answer = call(handler, "chat");
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::environment);
    EXPECT_FALSE(answer.error().hint.empty());
  }
  EXPECT_FALSE(fs::exists(folder()));
}

TEST_F(UnitsTest, PeoplesOwnUnitsAreNeverWrittenOrRemoved) {
  tree_.write("home/.config/systemd/user/glm-code.service", "mine");
  for (const auto handler : {unit_install, unit_remove}) {
    const auto answer = call(handler, "glm");
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::refused);
  }
  EXPECT_EQ(tree_.read("home/.config/systemd/user/glm-code.service"), "mine");
}

TEST_F(UnitsTest, AnUnknownServiceIsNotFound) {
  for (const auto handler : {unit_show, unit_install, unit_remove}) {
    const auto answer = call(handler, "chta");
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::not_found);
    EXPECT_THAT(answer.error().hint, HasSubstr("chat"));
  }
}

}  // namespace
}  // namespace gpumod
