defmodule Support.Beam do
  @moduledoc """
  BEAM nodes: the fixture as a program of its own, and peers that a test steers from outside distribution.
  """
  alias Support.{Net, OsProcess, Releases}

  @doc "Compiles the modules of `test/fixture` that nodes run, once, before the tests."
  def build_fixture do
    File.mkdir_p!(ebin())

    for module <- [:fixture, :relayed_epmd] do
      source = to_charlist("test/fixture/#{module}.erl")
      {:ok, ^module} = :compile.file(source, outdir: to_charlist(ebin()))
    end

    :ok
  end

  defp ebin, do: Path.join(System.tmp_dir!(), "tiebeam_fixture_#{System.pid()}")

  def remove_fixture, do: File.rm_rf(ebin())

  @doc """
  Starts the fixture on a BEAM as a program that can be killed and frozen. Options as for `Support.Target.start/2`, and
  `:release`.
  """
  def start_fixture(node, opts) do
    args =
      [
        "-noinput",
        name_option(node),
        to_string(node),
        "-setcookie",
        opts[:cookie] || Net.cookie(),
        "-pa",
        ebin()
      ] ++
        ["-kernel", "net_ticktime", "#{opts[:net_ticktime] || 60}"] ++
        if(opts[:hidden], do: ["-hidden"], else: []) ++
        (opts[:args] || []) ++ ["-s", "fixture", "main"]

    {erl, first} = Releases.erl(opts[:release])

    ExUnit.Callbacks.start_supervised!(
      {OsProcess, {erl, first ++ args, label: "erl #{node}", env: opts[:env]}}
    )
  end

  # A host with a dot in it, or an address of IPv6, is a long name.
  defp name_option(node) do
    [_, host] = node |> Atom.to_string() |> String.split("@")
    if String.contains?(host, [".", ":"]), do: "-name", else: "-sname"
  end

  def ready_line, do: ~r/^ready (\S+)$/

  @doc """
  Starts a peer that is steered over its standard input and output, so that it can lose every connection and still be asked.

  Options: `:cookie`, `:hidden`, `:net_ticktime`, `:logger_level`, `:args` (strings), `:env` (a map of strings), `:through`
  (a command with arguments that runs the program).
  """
  def start_peer(node, opts \\ []) do
    [alive, host] = node |> Atom.to_string() |> String.split("@")
    names = %{name: to_charlist(alive), host: to_charlist(host), longnames: name_option(node) == "-name"}
    %{peer: start_supervised_peer(node, names, opts), node: node, kind: :peer}
  end

  @doc "A peer that asks the first node it connects to for a name. Options as for `start_peer/2`."
  def start_nameless(opts \\ []) do
    opts = Keyword.update(opts, :args, ["-sname", "undefined"], &(["-sname", "undefined"] ++ &1))
    %{peer: start_supervised_peer(make_ref(), %{}, opts), node: nil, kind: :peer}
  end

  defp start_supervised_peer(id, names, opts) do
    args =
      ["-setcookie", opts[:cookie] || Net.cookie(), "-kernel", "net_ticktime", "#{opts[:net_ticktime] || 60}"] ++
        ["-kernel", "logger_level", opts[:logger_level] || "emergency", "-pa", ebin()] ++
        Enum.flat_map(:code.get_path(), &elixir_path(to_string(&1))) ++
        if(opts[:hidden], do: ["-hidden"], else: []) ++ (opts[:args] || [])

    options = %{
      connection: :standard_io,
      wait_boot: 60_000,
      env: for({name, value} <- opts[:env] || %{}, do: {to_charlist(name), to_charlist(value)}),
      args: Enum.map(args, &to_charlist/1)
    }

    exec =
      case opts[:through] do
        nil ->
          %{}

        [command | arguments] ->
          %{exec: {executable(command), Enum.map(arguments ++ ["erl"], &to_charlist/1)}}
      end

    ExUnit.Callbacks.start_supervised!(%{
      id: id,
      start: {__MODULE__, :start_peer_link, [options |> Map.merge(names) |> Map.merge(exec)]},
      restart: :temporary,
      shutdown: 10_000
    })
  end

  defp executable(command), do: command |> System.find_executable() |> to_charlist()

  @doc false
  def start_peer_link(options) do
    with {:ok, peer, _node} <- :peer.start_link(options), do: {:ok, peer}
  end

  # Peers run functions of Elixir and of this directory.
  defp elixir_path(path) do
    if Path.basename(Path.dirname(path)) in ["elixir", "tiebeam"], do: ["-pa", path], else: []
  end

  @doc "Calls a function on a peer, past distribution."
  def on(%{peer: peer}, module, function, args, timeout \\ 30_000) do
    :peer.call(peer, module, function, args, timeout)
  end

  def os_pid(peer), do: peer |> on(:os, :getpid, []) |> to_string()

  @doc "Sends a signal to a peer's program."
  def signal(os_pid, name) when is_binary(os_pid), do: OsProcess.send_signal(os_pid, name)
end
