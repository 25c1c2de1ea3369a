defmodule Support.Target do
  @moduledoc """
  The node under test, U: the fixture on a BEAM node or on a Rust node. The same test bodies run against both.

  `TIEBEAM_TARGETS` chooses the kinds (`beam,rust` by default). A BEAM node of another release of OTP is of a kind of its own
  (`Support.Releases`).
  """
  alias Support.{Beam, Net, OsProcess, Releases, RustPeer}

  @enforce_keys [:kind, :node, :process]
  defstruct @enforce_keys

  @doc "The kinds of this run."
  def kinds do
    for kind <- "TIEBEAM_TARGETS" |> System.get_env("beam,rust") |> String.split(",", trim: true) do
      case String.trim(kind) do
        "beam" -> :beam
        "rust" -> :rust
        other -> raise ArgumentError, "TIEBEAM_TARGETS knows beam and rust, not #{inspect(other)}"
      end
    end
  end

  @doc "The name of a test module for one kind."
  def module(base, kind), do: Module.concat(base, kind |> Atom.to_string() |> String.capitalize())

  @doc """
  Starts U and waits until it is ready. It ends with the test, or with the module when started in `setup_all`.

  Options: `:node`, or `:prefix` for a fresh name (default `"u"`, greater than the tests' own node), `:cookie`, `:net_ticktime`,
  `:hidden`, `:env` (a map), `:args` (more arguments of that kind), and of a Rust node `:epmd` (default `"client"`).
  """
  def start(kind, opts \\ []) do
    kind |> start_unready(opts) |> await_ready()
  end

  @doc "Waits until U, started without waiting, is ready."
  def await_ready(%__MODULE__{kind: kind} = target) do
    case OsProcess.await_line(target.process, program(kind).ready_line()) do
      {:ok, [_, name | _]} ->
        if name != Atom.to_string(target.node),
          do: ExUnit.Assertions.flunk("#{target.node} is ready as #{name}")

        target

      {:exited, status, output} ->
        ExUnit.Assertions.flunk("#{target.node} ended with status #{status}:\n#{output}")
    end
  end

  @doc "Starts U without waiting."
  def start_unready(kind, opts \\ []) do
    node = opts[:node] || Net.name(opts[:prefix] || "u")
    opts = Keyword.put(opts, :release, Releases.of(kind))
    %__MODULE__{kind: kind, node: node, process: program(kind).start_fixture(node, opts)}
  end

  defp program(:rust), do: RustPeer
  defp program(_beam), do: Beam

  @doc "Calls a function of the fixture, or of any module, on U."
  def on(%__MODULE__{node: node}, module \\ :fixture, function, args) do
    case :rpc.call(node, module, function, args, 60_000) do
      {:badrpc, why} -> ExUnit.Assertions.flunk("#{module}.#{function} on #{node}: #{inspect(why)}")
      value -> value
    end
  end

  @doc "The same, when failing is what the test wants to see: `{:badrpc, why}` is a value."
  def try_on(%__MODULE__{node: node}, module \\ :fixture, function, args) do
    :rpc.call(node, module, function, args, 60_000)
  end

  def kill(target), do: OsProcess.kill(target.process)
  def signal(target, name), do: OsProcess.signal(target.process, name)
end
