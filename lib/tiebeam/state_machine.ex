defmodule Tiebeam.StateMachine do
  @moduledoc """
  A state of your own that all nodes of a cluster have, BEAM or Rust: each applies the same commands in the same order.

      defmodule MyApp.Bank do
        use Tiebeam.StateMachine

        @impl true
        def init(_argument), do: {:ok, %{}}

        @impl true
        def handle_command({:deposit, to, amount}, accounts),
          do: {:reply, :ok, Map.update(accounts, to, amount, &(&1 + amount))}

        def handle_command({:transfer, from, to, amount}, accounts) do
          if Map.get(accounts, from, 0) < amount do
            {:reply, {:error, :insufficient}, accounts}
          else
            accounts = Map.update!(accounts, from, &(&1 - amount))
            {:reply, :ok, Map.update(accounts, to, amount, &(&1 + amount))}
          end
        end

        @impl true
        def handle_query({:balance, account}, accounts), do: Map.get(accounts, account, 0)
      end

      children = [
        {Tiebeam, name: MyApp.Cluster, voters: [:"a@h1", :"b@h2", :"c@h3"]},
        {MyApp.Bank, cluster: MyApp.Cluster, name: "bank"}
      ]

      {:ok, :ok} = MyApp.Bank.command({:deposit, "alice", 5})
      {:ok, 5} = MyApp.Bank.query({:balance, "alice"})

  Put it on each node that needs the state; they need not be voters. Rust nodes take part by the trait `StateMachine` of the crate
  `tiebeam_node`, with commands and a state that are the same terms.

  ## What is promised

  - A command whose answer is `{:ok, reply}` is done once, in one place of one order, and survives the loss of a minority of the voters, as a
    change of `Tiebeam.KV` does. The reply is what `c:handle_command/2` returned on the caller's node.
  - After `{:error, :unknown}` it may be done, or be done later; after any other error it was not done. A command that must
    not be done twice carries a number of yours, and the state remembers those it has seen.
  - A query reads what this node has: at least all commands that were answered on this node. With `consistency: :linear` it
    reads what was answered anywhere before it was asked, and needs a majority.
  - Commands of one caller, one after the other, are applied in that order. There is no order between those that are under way together.

  ## What is asked of the callbacks

  They run on every node, and again when a node starts. So `c:handle_command/2` depends on the command and the state alone: no
  clock, no random numbers, no process, no `node/0`; the caller puts such things into the command. It has no effects elsewhere. The
  state is data: no functions, no ports.

  A command that makes `c:handle_command/2` raise ends the machine on all nodes, for all of them do the same. Their supervisors start them again,
  the command is the next one again, and when that happened too often the supervisors give up. Its revision is in the log. What mends
  it is code that can do the command. Return errors as replies.

  After every `:snapshot_every` commands the nodes compare digests of their states. A node whose state differs from the one that
  is kept says so in its log, and ends with the reason `{:diverged, commands}`; it begins anew with what was kept.

  ## How it is kept

  Commands are keys of the cluster's store, in batches, below `tiebeam/machine/NAME/`: callers of one node that wait at the same time share a key. A
  node that starts, or was away, begins with the latest snapshot. That is written after every `:snapshot_every` commands, or 4 MiB of them, by
  the node of whom the last one came, or another one if that is gone; then the commands before it are removed. Commands are refused with `{:error, {:busy,
  limit}}` while 16 MiB of them have no snapshot.

  A command of one caller alone takes half as long again as a put of `Tiebeam.KV`; with 64 callers on a node several times as many commands are
  done as puts, because they share keys.

  A command has at most 110 KiB in the external term format, a state 8 MiB; all nodes write the whole state now and then, so
  it should be much smaller. All machines of a cluster share the 64 MiB of `Tiebeam.KV`.

  ## Options

  - `:cluster` - the name of the cluster. Required.
  - `:name` - the name of the machine, the same on all nodes: a binary of 1 to 255 bytes without `/`. Required.
  - `:argument` - for `c:init/1`, which must begin with the same state everywhere. Default: `nil`.
  - `:snapshot_every` - after how many commands there is a snapshot. The same on all nodes. Default: 1,000.
  - `:process` - the registered name of the process. Default: the module.
  """

  alias Tiebeam.{Leader, Leadership}
  alias Tiebeam.StateMachine.Replica

  @typedoc "A machine: its module, or what the option `:process` says. With a node, that of another BEAM node."
  @type server :: GenServer.server()

  @typedoc """
  Why a command was not done, or is not known to be done, or a query has no answer. Those of `t:Tiebeam.Leader.error/0`, and

  - `{:too_long, :command, bytes, limit}` - it has more bytes than a command may have.
  - `{:failed, text}` - `c:handle_query/2` failed.
  """
  @type error ::
          Leader.error()
          | {:too_long, :command, bytes :: pos_integer, limit :: pos_integer}
          | {:failed, String.t()}

  @typedoc """
  What a node has: `:commands` were applied, the last ones at `:revision`, of which `:snapshot` are in the latest snapshot. Two
  nodes with the same number of commands have the same `:digest`.
  """
  @type info :: %{
          revision: non_neg_integer,
          commands: non_neg_integer,
          snapshot: non_neg_integer | nil,
          digest: binary
        }

  @doc "The state before the first command. By default the argument."
  @callback init(argument :: term) :: {:ok, state :: term}

  @doc "Does a command. The reply is for its caller; on other nodes it is dropped."
  @callback handle_command(command :: term, state :: term) :: {:reply, reply :: term, state :: term}

  @doc "Answers a question about the state, on the node where it is asked. By default it fails."
  @callback handle_query(query :: term, state :: term) :: answer :: term

  @doc "What is kept of the state, and compared with other nodes: by default all of it."
  @callback snapshot(state :: term) :: term

  @doc "The state of what `c:snapshot/1` returned, on whatever node. By default that."
  @callback restore(snapshot :: term) :: state :: term

  @doc false
  defmacro __using__(_options) do
    quote do
      @behaviour Tiebeam.StateMachine

      @doc "The child specification; the options are those of `Tiebeam.StateMachine`."
      @spec child_spec(keyword) :: Supervisor.child_spec()
      def child_spec(options),
        do: %{id: Keyword.get(options, :process, __MODULE__), start: {__MODULE__, :start_link, [options]}}

      @doc "Starts this node's copy, linked to the caller."
      @spec start_link(keyword) :: GenServer.on_start()
      def start_link(options), do: Tiebeam.StateMachine.start_link(__MODULE__, options)

      @doc "Has a command done: `Tiebeam.StateMachine.command/3`."
      @spec command(term, keyword) :: {:ok, reply :: term} | {:error, Tiebeam.StateMachine.error()}
      def command(command, options \\ []), do: Tiebeam.StateMachine.command(__MODULE__, command, options)

      @doc "Asks about the state: `Tiebeam.StateMachine.query/3`."
      @spec query(term, keyword) :: {:ok, answer :: term} | {:error, Tiebeam.StateMachine.error()}
      def query(query, options \\ []), do: Tiebeam.StateMachine.query(__MODULE__, query, options)

      @impl Tiebeam.StateMachine
      def init(argument), do: {:ok, argument}

      @impl Tiebeam.StateMachine
      def handle_query(query, _state) do
        raise ArgumentError, "#{inspect(__MODULE__)} has no handle_query/2 for #{inspect(query)}"
      end

      @impl Tiebeam.StateMachine
      def snapshot(state), do: state

      @impl Tiebeam.StateMachine
      def restore(snapshot), do: snapshot

      defoverridable Tiebeam.StateMachine
    end
  end

  # A batch of one command fits into a value.
  @max_command_bytes 110 * 1024

  # The machine answers in time; one that is so much later hangs.
  @margin 5_000

  @defaults [cluster: nil, name: nil, argument: nil, snapshot_every: 1_000, process: nil]

  @doc "Starts this node's copy of a machine, linked to the caller. `{:error, {:no_group, text}}` if this node takes no part in a group."
  @spec start_link(module, keyword) :: GenServer.on_start()
  def start_link(module, options) do
    options = Leadership.options!(options, @defaults)

    unless is_atom(options.cluster) and options.cluster != nil do
      raise ArgumentError,
            "the option :cluster must be the name of a cluster, got: #{inspect(options.cluster)}"
    end

    unless name?(options.name) do
      raise ArgumentError,
            "the option :name must be a binary of 1 to 255 bytes without \"/\", got: #{inspect(options.name)}"
    end

    unless is_integer(options.snapshot_every) and options.snapshot_every in 1..1_000_000 do
      raise ArgumentError,
            "the option :snapshot_every must be a number from 1 to 1,000,000, got: #{inspect(options.snapshot_every)}"
    end

    Replica.start_link(%{options | process: options.process || module} |> Map.put(:module, module))
  end

  defp name?(name), do: is_binary(name) and byte_size(name) in 1..255 and not String.contains?(name, "/")

  @doc """
  Has a command done on all nodes. Returns when this one has done it, with its reply. The option `:timeout` is in milliseconds, by default 5,000.

      iex> MyApp.Bank.command({:deposit, "alice", 5})
      {:ok, :ok}
      iex> MyApp.Bank.command({:transfer, "alice", "bob", 7})
      {:ok, {:error, :insufficient}}
      iex> MyApp.Bank.command({:transfer, "alice", "bob", 2})
      {:ok, :ok}
  """
  @spec command(server, term, keyword) :: {:ok, reply :: term} | {:error, error}
  def command(server, command, options \\ []) do
    %{timeout: timeout} = Leadership.options!(options, timeout: Leadership.timeout())
    bytes = Leadership.encode(command)

    if byte_size(bytes) > @max_command_bytes,
      do: {:error, {:too_long, :command, byte_size(bytes), @max_command_bytes}},
      else: call(server, {:command, bytes, timeout}, timeout, :unknown)
  end

  @doc """
  Asks about the state. With `consistency: :local`, the default, this node answers at once; with `:linear` it has everything that was answered anywhere
  before. The option `:timeout` is that of `command/3`.

      iex> {:ok, :ok} = MyApp.Bank.command({:deposit, "carol", 3})
      iex> MyApp.Bank.query({:balance, "carol"})
      {:ok, 3}
      iex> MyApp.Bank.query({:balance, "carol"}, consistency: :linear)
      {:ok, 3}
  """
  @spec query(server, term, keyword) :: {:ok, answer :: term} | {:error, error}
  def query(server, query, options \\ []) do
    options = Leadership.options!(options, consistency: :local, timeout: Leadership.timeout())
    call(server, {:query, query, options.consistency, options.timeout}, options.timeout, :no_quorum)
  end

  @doc "What this node has. It writes the whole state once, for its digest."
  @spec info(server) :: info
  def info(server), do: GenServer.call(server, :info, Leadership.timeout() + @margin)

  defp call(server, request, timeout, late) do
    GenServer.call(server, request, timeout + @margin)
  catch
    :exit, {:timeout, _call} -> {:error, late}
  end
end
