defmodule Support.RustPeer do
  @moduledoc "A Rust node: the program `tiebeam`, as an operator runs it."
  alias Support.{Net, OsProcess}

  @doc "The program under test: `TIEBEAM_BIN`, or the build that has its assertions on."
  def program do
    path =
      System.get_env("TIEBEAM_BIN") ||
        Path.expand("debug/tiebeam", System.get_env("CARGO_TARGET_DIR", "target"))

    if not File.exists?(path) do
      ExUnit.Assertions.flunk("""
      there is no program at #{path}. Build it (cargo build -p tiebeam), or name it in TIEBEAM_BIN,
      or leave it out: TIEBEAM_TARGETS=beam
      """)
    end

    path
  end

  @doc "Starts `tiebeam node --fixture`. Options as for `Support.Target.start/2`."
  def start_fixture(node, opts) do
    args =
      [
        "node",
        "--name",
        to_string(node),
        "--cookie",
        opts[:cookie] || Net.cookie(),
        "--fixture",
        "--no-cluster"
      ] ++
        ["--net-ticktime", "#{opts[:net_ticktime] || 60}", "--epmd", opts[:epmd] || "client"] ++
        if(opts[:hidden], do: ["--hidden"], else: []) ++ (opts[:args] || [])

    ExUnit.Callbacks.start_supervised!(
      {OsProcess, {program(), args, label: "tiebeam #{node}", env: opts[:env]}}
    )
  end

  def ready_line, do: ~r/^ready (\S+) port=(\d+) pid=(\d+)$/
end
