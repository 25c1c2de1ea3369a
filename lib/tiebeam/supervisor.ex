defmodule Tiebeam.Supervisor do
  @moduledoc false
  # One cluster: the table that callers read, the reporter and the server, which survive each other.

  use Supervisor

  alias Tiebeam.{Options, Reporter, Server, Table}

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options) do
    Supervisor.start_link(__MODULE__, options, name: options.name)
  end

  @impl true
  def init(options) do
    Table.new(options.name, options.process, options.metadata)
    reporter = Reporter.new(options.name)
    Supervisor.init([{Reporter, reporter}, {Server, {options, reporter}}], strategy: :one_for_one)
  end
end
