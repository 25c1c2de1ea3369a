# The tests talk to real nodes, so they run in a node: visible, with an epmd of their own, and without the full mesh that
# `global` would weave between the nodes of tests that have nothing to do with each other. All three are decided when a VM
# starts; `mix test` therefore starts itself once more with what is needed and hands on the result.

for program <- ["erl", "epmd"], System.find_executable(program) == nil do
  IO.puts(
    :stderr,
    "The tests start real nodes: `#{program}` is not in PATH. Install Erlang/OTP (Debian: erlang-base)."
  )

  System.halt(1)
end

if System.get_env("TIEBEAM_TEST_VM") == nil do
  env = [
    {"TIEBEAM_TEST_VM", "1"},
    {"ERL_EPMD_PORT", System.get_env("ERL_EPMD_PORT") || Integer.to_string(Support.Net.free_port())},
    {"ELIXIR_ERL_OPTIONS",
     "#{System.get_env("ELIXIR_ERL_OPTIONS")} -kernel connect_all false -kernel prevent_overlapping_partitions false"}
  ]

  color = if IO.ANSI.enabled?(), do: ["--color"], else: []
  # Its own arguments, also when an alias runs it.
  arguments = System.argv() |> Enum.drop_while(&(&1 != "test")) |> Enum.drop(1)
  {_, status} = System.cmd("mix", ["test" | color ++ arguments], env: env, into: IO.stream(:stdio, :line))
  System.halt(status)
end

Support.FailureLog.open()
formatters = Application.get_env(:ex_unit, :formatters, [ExUnit.CLIFormatter]) ++ [Support.FailureLog]

# What is waited for comes at once on a machine that has time, and these are for one that has none.
ExUnit.start(
  formatters: formatters,
  capture_log: true,
  timeout: 180_000,
  assert_receive_timeout: 30_000,
  # They need root: `bin/test partitions`.
  exclude: [:partitions]
)

epmd = Support.Net.start_epmd(Support.Net.epmd_port())
{:ok, _} = Node.start(:"m#{System.pid()}@127.0.0.1", :longnames)
Node.set_cookie(:"#{Support.Net.cookie()}")

Support.Beam.build_fixture()

ExUnit.after_suite(fn _ ->
  Support.Beam.remove_fixture()
  GenServer.stop(epmd)
end)
