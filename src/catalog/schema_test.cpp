// The generated schemas and the reference say what the tables say.
#include "catalog/schema.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "catalog/previous.h"
#include "catalog/tables.h"

namespace gpumod {
namespace {

using ::testing::HasSubstr;
namespace json = boost::json;

const json::object& properties_of(const json::object& schema) {
  return schema.at("properties").as_object();
}

/// Every declaration is a property, with its help, and there is no property besides.
void expect_same(const std::vector<Declaration>& declared, const json::object& properties) {
  EXPECT_EQ(properties.size(), declared.size());
  for (const auto& each : declared) {
    ASSERT_TRUE(properties.contains(each.key)) << each.key;
    EXPECT_THAT(std::string(properties.at(each.key).as_object().at("description").as_string()), HasSubstr(each.help));
  }
}

std::vector<Declaration> all_service_keys() {
  auto all = declarations_of(common_service_table());
  for (const auto kind : all_engines)
    for (auto& each : declarations_of(engine_table(kind)))
      all.push_back(std::move(each));
  return all;
}

TEST(JsonSchema, holds_every_declared_key) {
  const auto service = json::parse(json_schema(FileKind::service)).as_object();
  EXPECT_EQ(service.at("$schema").as_string(), "https://json-schema.org/draft/2020-12/schema");
  const auto& one = service.at("$defs").at("service").as_object();
  expect_same(all_service_keys(), properties_of(one));
  EXPECT_EQ(one.at("additionalProperties"), false);
  EXPECT_EQ(one.at("required").as_array(), json::array{"engine"});
  const auto mode = json::parse(json_schema(FileKind::mode)).as_object();
  expect_same(declarations_of(mode_table()), properties_of(mode));
  EXPECT_EQ(mode.at("required").as_array(), json::array{"services"});
  expect_same(declarations_of(settings_table()),
              properties_of(json::parse(json_schema(FileKind::settings)).as_object()));
}

TEST(JsonSchema, forbids_the_keys_of_other_engines) {
  const auto service = json::parse(json_schema(FileKind::service));
  const auto& rules = service.at("$defs").at("service").at("allOf").as_array();
  ASSERT_EQ(rules.size(), std::size(all_engines));
  EXPECT_EQ(rules[0].at("if").at("properties").at("engine").at("const"), "vllm");
  EXPECT_EQ(rules[0].at("then").at("properties").at("models_dir"), false);
  EXPECT_FALSE(rules[0].at("then").at("properties").as_object().contains("dtype"));
}

TEST(JsonSchema, carries_bounds_and_choices) {
  const auto service = json::parse(json_schema(FileKind::service));
  const auto& properties = service.at("$defs").at("service").at("properties").as_object();
  const auto& port = properties.at("port").at("anyOf").at(0);
  EXPECT_EQ(port.at("minimum"), 0);
  EXPECT_EQ(port.at("maximum"), 65535);
  EXPECT_EQ(properties.at("sleep").at("anyOf").at(0).at("enum"), (json::array{"none", "l1", "l2", "router"}));
  EXPECT_TRUE(
      properties.at("probe").at("anyOf").at(0).at("anyOf").at(1).at("properties").as_object().contains("dimensions"));
}

TEST(Reference, holds_every_declared_key) {
  const auto text = configuration_reference_markdown();
  auto all = all_service_keys();
  const std::vector<std::vector<Declaration>> tables = {
      declarations_of(mode_table()), declarations_of(settings_table()), declarations_of(model_table()),
      declarations_of(probe_table()), declarations_of(engine_settings_table())};
  for (const auto& table : tables)
    all.insert(all.end(), table.begin(), table.end());
  for (const auto& each : all) {
    EXPECT_THAT(text, HasSubstr("| `" + each.key + "` | "));
    EXPECT_FALSE(each.help.empty()) << each.key;
  }
  for (const auto& each : previous_renamings())
    EXPECT_THAT(text, HasSubstr("| `" + each.old_key + "` | "));
}

TEST(Tables, no_key_stands_twice_and_aliases_exist) {
  for (const auto kind : all_engines) {
    auto all = declarations_of(common_service_table());
    for (auto& each : declarations_of(engine_table(kind)))
      all.push_back(std::move(each));
    std::set<std::string> keys;
    for (const auto& each : all)
      EXPECT_TRUE(keys.insert(each.key).second) << each.key;
    for (const auto& each : all)
      EXPECT_TRUE(each.same_as.empty() || keys.contains(each.same_as)) << each.key;
  }
}

// A row of the old names that leads nowhere would lose people's values without a word.
TEST(Tables, old_names_lead_to_declared_keys) {
  std::set<std::string> known;
  for (const auto& each : all_service_keys())
    known.insert(each.key);
  for (const auto& each : declarations_of(model_table()))
    known.insert("model." + each.key);
  for (const auto& each : previous_renamings())
    EXPECT_TRUE(each.new_key.empty() || known.contains(each.new_key)) << each.new_key;
}

}  // namespace
}  // namespace gpumod
